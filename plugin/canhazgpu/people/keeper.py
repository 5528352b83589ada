"""Keeps one run's reservation: gives signs of life, and releases it the moment the run is gone.

A process of its own, which holds nothing of the run's: no terminal, no pipe, no directory. The
command runs in the process that the user started; the keeper watches that. Where the keeper is
killed, the reservation lasts as long as the command's process, by its pid in the ledger.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from canhazgpu.errors import CanhazgpuError, StoreError
from canhazgpu.ledger.port import Ledger
from canhazgpu.node.process_id import ProcessId
from canhazgpu.node.process_watch import ProcessWatch
from canhazgpu.node.processes import PROC, is_alive, this_process
from canhazgpu.node.run_marker import clear_own_marker, processes_of_run

RELEASE_PAUSE_S = (0.1, 0.5, 1.0, 2.0, 5.0)
"""Pauses between the attempts to release, the last one again and again."""
GIVE_UP_AFTER_S = 3600.0
"""A release that the ledger did not take for so long is left to whoever next needs the GPUs."""
KILL_AFTER_S = 10.0
"""Time between asking a run to end and ending it."""


@dataclass(frozen=True, slots=True)
class Kept:
    """One run: its owner on its node, its mark and its command's process, and what bounds it.

    `timeout_s` ends the run after so long; `ends_when_lost` ends it with its reservation.
    """

    node: str
    owner: str
    mark: str
    command: ProcessId
    heartbeat_s: float
    timeout_s: float | None = None
    ends_when_lost: bool = False


class Keeper:
    """Watches one run until nothing of it is left."""

    def __init__(
        self,
        kept: Kept,
        watch: ProcessWatch,
        open_ledger: Callable[[], Ledger],
        restore: Callable[[Ledger], str],
    ) -> None:
        """Take the run; `watch` watches its command.

        `restore` reserves again what a ledger without its memory forgot; it returns why the
        reservation is lost, "" where it is there again.
        """
        self._kept = kept
        self._watch = watch
        self._open_ledger = open_ledger
        self._restore = restore
        self._opened: Ledger | None = None
        self._lost = False
        self._ends = None if kept.timeout_s is None else time.monotonic() + kept.timeout_s

    def keep(self) -> None:
        """Return when the run is over and its GPUs are free."""
        self._give_sign((self._kept.command, this_process()))
        while not self._ended(self._pause_s()):
            self._give_sign()
            if self._is_over_time():
                self._tell(f"the run's time of {self._kept.timeout_s:g} s is over; ending it")
                self._end_run()
        self._outlast_leftovers()
        self._release()

    def _ended(self, wait_s: float) -> bool:
        """Wait for the command's end, at most so long."""
        return self._watch.wait_for_exit(wait_s)

    def _pause_s(self) -> float:
        """Return the time until something is due, a sign of life or the run's end."""
        if self._ends is None:
            return self._kept.heartbeat_s
        return min(self._kept.heartbeat_s, max(self._ends - time.monotonic(), 0))

    def _is_over_time(self) -> bool:
        if self._ends is None or time.monotonic() < self._ends:
            return False
        self._ends = None
        return True

    def _give_sign(self, processes: tuple[ProcessId, ...] | None = None) -> None:
        if self._lost:
            return
        try:
            ledger = self._ledger()
            if ledger.renew(self._kept.node, self._kept.owner, processes):
                return
            reason = self._restore(ledger)
            if not reason:
                ledger.renew(self._kept.node, self._kept.owner, self._living())
        except StoreError:
            # The ledger will be back; until then the command's process speaks for it.
            return
        if reason:
            self._lost = True
            self._tell(f"the reservation is lost: {reason}")
            if self._kept.ends_when_lost:
                self._end_run()

    def _living(self) -> tuple[ProcessId, ...]:
        left = processes_of_run(self._kept.mark)
        return (*dict.fromkeys((self._kept.command, *left)), this_process())

    def _outlast_leftovers(self) -> None:
        """Wait for what the command left running in the background: it may use the GPUs."""
        known: tuple[ProcessId, ...] = ()
        while left := processes_of_run(self._kept.mark):
            if left != known:
                self._give_sign((*left, this_process()))
                known = left
            else:
                self._give_sign()
            with contextlib.closing(ProcessWatch(left)) as watch:
                watch.wait_for_exit(self._pause_s())
            if self._is_over_time():
                self._end_run()

    def _end_run(self) -> None:
        """Ask all processes of the run to end, and end those that do not."""
        self._signal(signal.SIGTERM)
        if not self._ended(KILL_AFTER_S) or processes_of_run(self._kept.mark):
            self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        self._watch.send_signal(number)
        others = set(processes_of_run(self._kept.mark)) - {self._kept.command}
        with contextlib.closing(ProcessWatch(sorted(others))) as watch:
            watch.send_signal(number)

    def _release(self) -> None:
        began = time.monotonic()
        pauses = iter(RELEASE_PAUSE_S)
        pause_s = 0.0
        while time.monotonic() - began < GIVE_UP_AFTER_S:
            with contextlib.suppress(StoreError):
                self._ledger().release(self._kept.node, self._kept.owner, "run ended")
                return
            pause_s = next(pauses, pause_s)
            time.sleep(pause_s)

    def _ledger(self) -> Ledger:
        if self._opened is None:
            self._opened = self._open_ledger()
        return self._opened

    def _tell(self, message: str) -> None:
        """Write to the command's standard error, by its process: the keeper holds no copy of it."""
        process = PROC / str(self._kept.command.pid)
        path = process / "fd/2"
        with contextlib.suppress(OSError):
            if process.stat().st_uid != os.geteuid():
                # Another user may have any file there, which root would then write to.
                return
            flags = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            descriptor = os.open(path, flags)
            try:
                if is_alive(self._kept.command):
                    os.write(descriptor, f"canhazgpu: {message}\n".encode())
            finally:
                os.close(descriptor)


def run_keeper(told: int, make: Callable[[ProcessWatch], Keeper], command: ProcessId) -> None:
    """Keep a run from now on; says so on `told` once the command is watched."""
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTSTP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    clear_own_marker()
    watch = ProcessWatch([command])
    if watch.wait_for_exit(0):
        return
    os.write(told, b"ready")
    os.close(told)
    with contextlib.suppress(CanhazgpuError):
        make(watch).keep()
