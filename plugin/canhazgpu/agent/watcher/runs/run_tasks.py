"""What the watcher does for runs in a `ForkedTask`: what asks the store, or reads processes."""

from __future__ import annotations

import os
import signal
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from typing import Protocol

from canhazgpu.agent.watcher.runs.run_plan import Heartbeat
from canhazgpu.allocation.allocator import GpuAllocator
from canhazgpu.allocation.restore import restore_reservation
from canhazgpu.errors import CanhazgpuError, error_text
from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.ledger.local.fallback_ledger import FallbackLedger
from canhazgpu.ledger.local.runs.run_record import RunRecord
from canhazgpu.ledger.port import Ledger
from canhazgpu.ledger.values import NodeView
from canhazgpu.node.process_id import ProcessId
from canhazgpu.node.process_watch import ProcessWatch
from canhazgpu.node.processes import PROC, is_alive
from canhazgpu.node.run_marker import processes_of_runs
from canhazgpu.probe.accounting.run_use import RunUses

RUN_ENDED = "run ended"


class RunPorts(Protocol):
    """What is opened of the node, each time anew. Raises `CanhazgpuError`."""

    @property
    def tells_use(self) -> bool:
        """Whether the driver keeps what processes use."""

    def ledger(self) -> FallbackLedger:
        """Open the ledger."""

    def allocator(self, ledger: Ledger) -> GpuAllocator:
        """Return the allocator over this ledger."""

    def uses(self, view: NodeView, owners: Collection[str]) -> RunUses:
        """Begin to read what these owners made of their GPUs."""


@dataclass(frozen=True, slots=True)
class Renewed:
    """The reservation stands, or it is not known whether it does."""


@dataclass(frozen=True, slots=True)
class Missing:
    """The ledger has no such reservation."""


@dataclass(frozen=True, slots=True)
class Lost:
    """The reservation cannot be restored; `reason` says why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Left:
    """Processes that keep the run; without any its GPUs are released."""

    processes: tuple[ProcessId, ...]


@dataclass(frozen=True, slots=True)
class NotReleased:
    """Nobody is left, and the release failed."""

    reason: str


def renew_all(
    node: str,
    due: Sequence[tuple[RunRecord, Heartbeat]],
    ports: RunPorts,
) -> dict[str, Renewed | Missing | Lost]:
    """Record heartbeats; return the outcome by owner. Those that are not in it are not known."""
    ledger = ports.ledger()
    found: dict[str, Renewed | Missing | Lost] = {}
    for record, heartbeat in due:
        try:
            found[record.owner] = _renew(node, record, heartbeat, ledger, ports)
        except CanhazgpuError:
            # Without a heartbeat the reservation lasts as long as the run's processes. The next
            # one would wait for the same store.
            break
    return found


def _renew(
    node: str,
    record: RunRecord,
    heartbeat: Heartbeat,
    ledger: Ledger,
    ports: RunPorts,
) -> Renewed | Missing | Lost:
    if ledger.renew(node, record.owner, heartbeat.processes):
        return Renewed()
    if not heartbeat.restores:
        return Missing()
    reason = restore_reservation(ledger, ports.allocator(ledger), record.claim, record.gpus)
    if reason:
        return Lost(reason)
    ledger.renew(node, record.owner, heartbeat.processes)
    return Renewed()


def end_all(
    node: str, uid: int, runs: Mapping[str, str], ports: RunPorts
) -> dict[str, Left | NotReleased]:
    """Find the processes of one user's runs, whose commands have ended; release those without any.

    `runs` has the marker by owner.
    """
    found = processes_of_runs(tuple(runs.values()), uid)
    outcomes: dict[str, Left | NotReleased] = {
        owner: Left(found[marker]) for owner, marker in runs.items()
    }
    ended = [owner for owner, marker in runs.items() if not found[marker]]
    if not ended:
        return outcomes
    try:
        ledger = ports.ledger()
    except CanhazgpuError as exc:
        return outcomes | dict.fromkeys(ended, NotReleased(error_text(exc)))
    uses = _begin_uses(node, ended, ledger, ports)
    released, failed = _release(node, ended, ledger)
    if uses is not None:
        _tell_uses(released, uses, ledger)
    return outcomes | failed


def _release(
    node: str, owners: Sequence[str], ledger: Ledger
) -> tuple[list[str], dict[str, NotReleased]]:
    """Release these owners; return those that held something, and those that could not be."""
    released = []
    for place, owner in enumerate(owners):
        try:
            if ledger.release(node, owner, RUN_ENDED):
                released.append(owner)
        except CanhazgpuError as exc:
            # The next one would wait for the same store.
            return released, dict.fromkeys(owners[place:], NotReleased(error_text(exc)))
    return released, {}


def _begin_uses(
    node: str, owners: Collection[str], ledger: Ledger, ports: RunPorts
) -> RunUses | None:
    """Begin to read the use before the release; a run whose use cannot be read ends as any."""
    if not ports.tells_use:
        return None
    try:
        (view,) = ledger.read_nodes([node])
    except CanhazgpuError:
        return None
    return ports.uses(view, owners)


def _tell_uses(released: Collection[str], uses: RunUses, ledger: FallbackLedger) -> None:
    for owner in released:
        note = uses.note(owner)
        if note is not None:
            ledger.record_note(note)


def signal_background(record: RunRecord, number: signal.Signals) -> bool:
    """Signal the processes of the run beside its command."""
    found = processes_of_runs([record.marker], record.uid)[record.marker]
    with closing(ProcessWatch(sorted(set(found) - {record.command}))) as watch:
        watch.send_signal(number)
    return True


def tell_run(record: RunRecord, text: str) -> bool:
    """Write a line to the standard error of the run's command, with its user's rights alone.

    What is open there may be any file that the user named. Root writes to none.
    """
    os.setgroups(record.groups)
    os.setresgid(record.gid, record.gid, record.gid)
    os.setresuid(record.uid, record.uid, record.uid)
    flags = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        descriptor = os.open(PROC / str(record.command.pid) / "fd/2", flags)
    except OSError:
        # It has ended, has another user's rights, or a socket there.
        return False
    if is_alive(record.command):
        os.write(descriptor, f"canhazgpu: {text}\n".encode())
    return True
