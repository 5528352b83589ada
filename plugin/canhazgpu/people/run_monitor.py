"""Monitor one run: send heartbeats for its reservation, and release it when the run ends.

The monitor is a process of its own and shares nothing with the run: no terminal, no pipe and no
directory. The command runs in the process that the user started, and the monitor watches that
process. Where the monitor is killed, the reservation lasts as long as the command's process,
because the ledger has its pid.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from canhazgpu.errors import CanhazgpuError, StoreError
from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.ledger.journal_entries import NumberedEntry
from canhazgpu.ledger.port import Ledger
from canhazgpu.ledger.usage import DAY_S
from canhazgpu.node.process_id import ProcessId
from canhazgpu.node.process_watch import ProcessWatch
from canhazgpu.node.processes import PROC, is_alive, this_process
from canhazgpu.node.run_marker import clear_own_marker, processes_of_run

if TYPE_CHECKING:
    from canhazgpu.probe.accounting.run_use import RunUses

RELEASE_RETRY_PAUSES_S = (0.1, 0.5, 1.0, 2.0, 5.0)
"""Pauses between the attempts to release, the last one again and again."""
RELEASE_RETRY_LIMIT_S = 3600.0
"""After so long the monitor ends without a release; the next allocation finds the owner dead."""
SIGKILL_DELAY_S = 10.0
"""Time between SIGTERM and SIGKILL."""


@dataclass(frozen=True, slots=True)
class MonitoredRun:
    """One run: its owner, its node, its marker, its command's process and its limits.

    The run ends after `timeout_s`. With `ends_when_lost` it ends when its reservation is lost.
    """

    node: str
    owner: str
    marker: str
    command: ProcessId
    heartbeat_s: float
    timeout_s: float | None = None
    ends_when_lost: bool = False


class RunMonitor:
    """Monitors one run until none of its processes is left."""

    def __init__(
        self,
        run: MonitoredRun,
        watch: ProcessWatch,
        open_ledger: Callable[[], Ledger],
        restore: Callable[[Ledger], str],
        begin_use: Callable[[Ledger], RunUses | None],
    ) -> None:
        """Take the run; `watch` watches its command.

        `restore` reserves the GPUs again where Redis lost the reservation. It returns why the
        reservation is lost for good, "" where it is not. `begin_use` begins to read what the run
        made of its GPUs, None where nothing keeps it.
        """
        self._run = run
        self._watch = watch
        self._open_ledger = open_ledger
        self._restore = restore
        self._begin_use = begin_use
        self._cached_ledger: Ledger | None = None
        self._reservation_lost = False
        self._deadline = None if run.timeout_s is None else time.monotonic() + run.timeout_s

    def monitor(self) -> None:
        """Return when the run has ended and its GPUs are released."""
        self._send_heartbeat((self._run.command, this_process()))
        while not self._wait_for_command(self._time_until_due_s()):
            self._send_heartbeat()
            if self._is_past_timeout():
                self._write_to_command_stderr(
                    f"the run's time of {self._run.timeout_s:g} s is over; ending it"
                )
                self._terminate_run()
        self._wait_for_background_processes()
        self._release_with_retries()

    def _wait_for_command(self, wait_s: float) -> bool:
        """Tell whether the command has ended; wait at most so long for it."""
        return self._watch.wait_for_exit(wait_s)

    def _time_until_due_s(self) -> float:
        """Return the time until the next heartbeat or the run's time-out."""
        if self._deadline is None:
            return self._run.heartbeat_s
        return min(self._run.heartbeat_s, max(self._deadline - time.monotonic(), 0))

    def _is_past_timeout(self) -> bool:
        if self._deadline is None or time.monotonic() < self._deadline:
            return False
        self._deadline = None
        return True

    def _send_heartbeat(self, processes: tuple[ProcessId, ...] | None = None) -> None:
        if self._reservation_lost:
            return
        try:
            ledger = self._ledger()
            if ledger.renew(self._run.node, self._run.owner, processes):
                return
            reason = self._restore(ledger)
            if not reason:
                ledger.renew(self._run.node, self._run.owner, self._live_processes())
        except StoreError:
            # Without a heartbeat the reservation lasts as long as the command's process.
            return
        if reason:
            self._reservation_lost = True
            self._write_to_command_stderr(f"the reservation is lost: {reason}")
            if self._run.ends_when_lost:
                self._terminate_run()

    def _live_processes(self) -> tuple[ProcessId, ...]:
        left = processes_of_run(self._run.marker)
        return (*dict.fromkeys((self._run.command, *left)), this_process())

    def _wait_for_background_processes(self) -> None:
        """Wait for processes that the command left in the background: they may use the GPUs."""
        known: tuple[ProcessId, ...] = ()
        while left := processes_of_run(self._run.marker):
            if left != known:
                self._send_heartbeat((*left, this_process()))
                known = left
            else:
                self._send_heartbeat()
            with contextlib.closing(ProcessWatch(left)) as watch:
                watch.wait_for_exit(self._time_until_due_s())
            if self._is_past_timeout():
                self._terminate_run()

    def _terminate_run(self) -> None:
        """Send SIGTERM to all processes of the run, and later SIGKILL to those that are left."""
        self._signal_run(signal.SIGTERM)
        if not self._wait_for_command(SIGKILL_DELAY_S) or processes_of_run(self._run.marker):
            self._signal_run(signal.SIGKILL)

    def _signal_run(self, number: signal.Signals) -> None:
        self._watch.send_signal(number)
        others = set(processes_of_run(self._run.marker)) - {self._run.command}
        with contextlib.closing(ProcessWatch(sorted(others))) as watch:
            watch.send_signal(number)

    def _release_with_retries(self) -> None:
        began = time.monotonic()
        pauses = iter(RELEASE_RETRY_PAUSES_S)
        pause_s = 0.0
        while time.monotonic() - began < RELEASE_RETRY_LIMIT_S:
            with contextlib.suppress(StoreError):
                self._release()
                return
            pause_s = next(pauses, pause_s)
            time.sleep(pause_s)

    def _release(self) -> None:
        ledger, node, owner = self._ledger(), self._run.node, self._run.owner
        uses = self._begin_use(ledger)
        if ledger.release(node, owner, "run ended") and uses is not None:
            note = uses.note(owner)
            if note is not None:
                # The time is the store's, not this machine's: it records none later than its own.
                entry = NumberedEntry(1, replace(note, at=note.at + DAY_S))
                ledger.record_entries(node, "", [entry])

    def _ledger(self) -> Ledger:
        if self._cached_ledger is None:
            self._cached_ledger = self._open_ledger()
        return self._cached_ledger

    def _write_to_command_stderr(self, message: str) -> None:
        """Write to the command's standard error through /proc: the monitor has no copy of it."""
        process = PROC / str(self._run.command.pid)
        path = process / "fd/2"
        with contextlib.suppress(OSError):
            if process.stat().st_uid != os.geteuid():
                # Another user's process may have any file open there; root must not write to it.
                return
            flags = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            descriptor = os.open(path, flags)
            try:
                if is_alive(self._run.command):
                    os.write(descriptor, f"canhazgpu: {message}\n".encode())
            finally:
                os.close(descriptor)


def run_monitor_process(
    ready_fd: int, create_monitor: Callable[[ProcessWatch], RunMonitor], command: ProcessId
) -> None:
    """Monitor a run until it ends; write to `ready_fd` once the command is watched."""
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTSTP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    clear_own_marker()
    watch = ProcessWatch([command])
    if watch.wait_for_exit(0):
        return
    os.write(ready_fd, b"ready")
    os.close(ready_fd)
    with contextlib.suppress(CanhazgpuError):
        create_monitor(watch).monitor()
