"""The queue: who waits for GPUs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from canhazgpu.frozen_dataclass import dataclass

if TYPE_CHECKING:
    from canhazgpu.ledger.values import Waiter


@dataclass(frozen=True, slots=True)
class QueueRequest:
    """The nodes whose queues to read; all nodes if none is named."""

    nodes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeQueue:
    """One node's queue; the first waiter is the next one.

    `read_at` is the time of Redis, in seconds since the epoch. `display_indices` has the display
    indices of the node's GPUs by UUID.
    """

    node: str
    read_at: float
    waiters: tuple[Waiter, ...]
    display_indices: Mapping[str, str]
