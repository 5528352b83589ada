"""Status: every GPU, who holds it, and what it really does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from canhazgpu.people.revocations import Revocation
    from canhazgpu.status.node_status import NodeStatus
    from canhazgpu.status.user_filter import User


@dataclass(frozen=True, slots=True)
class StatusRequest:
    """The nodes to show, all where none is named.

    `memory_threshold_mb` stands for the configured one. With `names_caller` the answer tells who
    asks, with `revocations` what others lately released of the caller's reservations.
    """

    nodes: tuple[str, ...] = ()
    memory_threshold_mb: int | None = None
    names_caller: bool = False
    revocations: bool = False


@dataclass(frozen=True, slots=True)
class StatusAnswer:
    """The nodes in the order of their names.

    `scan_fault` says why this node's scan as a whole failed, None where it did not.
    """

    nodes: tuple[NodeStatus, ...]
    scan_fault: str | None = None
    caller: User | None = None
    revocations: tuple[Revocation, ...] = ()
