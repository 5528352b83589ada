"""Is the owner of a reservation, or a waiter, still alive on its node; pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.node.process_id import ProcessId

NODE_REBOOTED = "node rebooted"
PROCESSES_ENDED = "its processes are gone"
HEARTBEAT_LOST = "no sign of life"
PROCESSES_STOPPED = "stopped"
DEFAULT_LEASE_S = 60.0
"""Longest time without a heartbeat for an owner whose processes this process cannot see."""


class ProcessBound(Protocol):
    """A claim or a waiter: it lasts as long as its processes live."""

    @property
    def boot_id(self) -> str | None:
        """The boot of the node in which the processes run; None where it is not known."""

    @property
    def processes(self) -> tuple[ProcessId, ...]:
        """It lasts while one of them lives. Without any it does not depend on processes."""

    @property
    def pid_namespace(self) -> int | None:
        """The inode of the pid namespace of `processes`; None where it is not known."""


@dataclass(frozen=True, slots=True)
class LivenessContext:
    """The boot and the pid namespace of this process, and which processes it sees alive.

    `boot_id` and `pid_namespace` are None where they are not known.
    """

    boot_id: str | None
    pid_namespace: int | None
    is_alive: Callable[[ProcessId], bool]
    is_stopped: Callable[[ProcessId], bool] = lambda process: False


def death_reason(
    holder: ProcessBound,
    silent_s: float,
    liveness: LivenessContext,
    lease_s: float = DEFAULT_LEASE_S,
) -> str:
    """Return why the holder on this node is dead; "" where it lives or that is not known.

    `silent_s` is the time since its last heartbeat. It counts only where the holder's pids are of
    another namespace: a holder that lives may be unable to reach Redis for a long time.
    """
    if None not in (holder.boot_id, liveness.boot_id) and holder.boot_id != liveness.boot_id:
        return NODE_REBOOTED
    if not holder.processes:
        return ""
    if None not in (holder.pid_namespace, liveness.pid_namespace) and (
        holder.pid_namespace != liveness.pid_namespace
    ):
        return HEARTBEAT_LOST if silent_s > lease_s else ""
    return "" if any(map(liveness.is_alive, holder.processes)) else PROCESSES_ENDED


def queue_removal_reason(waiter: ProcessBound, silent_s: float, liveness: LivenessContext) -> str:
    """Return why the waiter is to be removed from the queue, "" where it stays.

    A stopped process (SIGSTOP) would not take its GPUs. It joins the queue again when it continues.
    """
    if reason := death_reason(waiter, silent_s, liveness):
        return reason
    same = waiter.pid_namespace == liveness.pid_namespace
    stopped = same and bool(waiter.processes) and all(map(liveness.is_stopped, waiter.processes))
    return PROCESSES_STOPPED if stopped else ""
