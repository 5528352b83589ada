"""Pure: is the owner of a reservation, or a waiter, gone from its node."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from canhazgpu.node.process_id import ProcessId

NODE_REBOOTED = "node rebooted"
PROCESSES_ENDED = "its processes are gone"
HEARTBEAT_LOST = "no sign of life"
PROCESSES_STOPPED = "stopped"
DEFAULT_LEASE_S = 60.0
"""How long an owner whose processes cannot be looked at may be silent."""


class ProcessBound(Protocol):
    """What a claim and a waiter have in common: whose life keeps them."""

    @property
    def boot_id(self) -> str | None:
        """The node's boot in which they live."""

    @property
    def processes(self) -> tuple[ProcessId, ...]:
        """Any of these alive keeps them; none at all: they do not depend on processes."""

    @property
    def pid_namespace(self) -> int | None:
        """The namespace of the pids."""


@dataclass(frozen=True, slots=True)
class LivenessContext:
    """The node as this process sees it: its boot, the namespace of its pids, and who lives.

    `boot_id` and `pid_namespace` are None where they are not told.
    """

    boot_id: str | None
    pid_namespace: int | None
    is_alive: Callable[[ProcessId], bool]
    is_stopped: Callable[[ProcessId], bool] = lambda process: False


def death_reason(
    holder: ProcessBound, silent_s: float, here: LivenessContext, lease_s: float = DEFAULT_LEASE_S
) -> str:
    """Return why the holder on this node is gone, "" where it is not, or that cannot be told.

    `silent_s` counts the seconds since its last sign of life. They decide only where its pids are
    those of another namespace: a holder that lives may be kept from the store for long.
    """
    if None not in (holder.boot_id, here.boot_id) and holder.boot_id != here.boot_id:
        return NODE_REBOOTED
    if not holder.processes:
        return ""
    if None not in (holder.pid_namespace, here.pid_namespace) and (
        holder.pid_namespace != here.pid_namespace
    ):
        return HEARTBEAT_LOST if silent_s > lease_s else ""
    return "" if any(map(here.is_alive, holder.processes)) else PROCESSES_ENDED


def queue_removal_reason(waiter: ProcessBound, silent_s: float, here: LivenessContext) -> str:
    """Return why a waiter must not keep others waiting, "" where it may.

    One that was stopped takes no GPU when its turn comes; it joins again when it goes on.
    """
    if reason := death_reason(waiter, silent_s, here):
        return reason
    same = waiter.pid_namespace == here.pid_namespace
    stopped = same and bool(waiter.processes) and all(map(here.is_stopped, waiter.processes))
    return PROCESSES_STOPPED if stopped else ""
