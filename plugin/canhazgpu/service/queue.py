"""The queue: who waits for GPUs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from canhazgpu.ledger.values import Waiter


@dataclass(frozen=True, slots=True)
class QueueRequest:
    """The nodes whose queues are asked for, all where none is named."""

    nodes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeQueue:
    """One node's queue, the next one first; `places` has the places of its GPUs by UUID.

    `read_at` is now, by the store's clock, in seconds since the epoch.
    """

    node: str
    read_at: float
    waiters: tuple[Waiter, ...]
    places: Mapping[str, str]
