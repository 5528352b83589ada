"""A reader as its parent sees it: a child process that may hang, and be abandoned."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
from typing import NoReturn

from canhazgpu.agent.scanner.messages import MAX_ANSWER_BYTES, ReadSettings
from canhazgpu.agent.scanner.reader import HEADER, SCAN, run_reader
from canhazgpu.node.daemonize import close_descriptors_except, duplicate_above_stdio
from canhazgpu.probe.bounded_child import die_with_parent

HANDLED_SIGNALS = (signal.SIGCHLD, signal.SIGHUP)
"""What the scanner does not leave at the default."""


class ReaderProcess:
    """A forked reader. Raises `OSError` where none can be started."""

    def __init__(self, settings: ReadSettings) -> None:
        with contextlib.ExitStack() as undo:
            order_end, self._orders = _pipe(undo)
            self.answers, answer_end = _pipe(undo)
            self.pid = _fork(settings, order_end, answer_end)
            undo.pop_all()
        os.close(order_end)
        os.close(answer_end)
        os.set_blocking(self.answers, False)
        self._received = bytearray()

    def order(self) -> None:
        """Order a scan. One that has ended meanwhile is told by `how_it_ended`."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._orders, SCAN)

    def end(self) -> None:
        """Let it end by itself."""
        if self._orders >= 0:
            os.close(self._orders)
            self._orders = -1

    def kill(self) -> None:
        """Kill it with all that it started; one that hangs in the kernel stays."""
        for kill in (os.killpg, os.kill):
            with contextlib.suppress(ProcessLookupError):
                kill(self.pid, signal.SIGKILL)

    def answer(self) -> tuple[bytes, bytes] | None:
        """Return kind and scan of an answer that has come; None while there is no whole one.

        Raises `ValueError` for what is no answer.
        """
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(self.answers, 1 << 20):
                self._received += chunk
        if len(self._received) < HEADER.size:
            return None
        kind, length = HEADER.unpack_from(self._received)
        if length > MAX_ANSWER_BYTES:
            raise ValueError(f"an answer of {length} bytes")
        end = HEADER.size + length
        if len(self._received) < end:
            return None
        scan = bytes(self._received[HEADER.size : end])
        del self._received[:end]
        return kind, scan

    def how_it_ended(self) -> str | None:
        """Reap it; returns how it ended, None while it has not. One that was stopped is killed."""
        try:
            pid, status = os.waitpid(self.pid, os.WNOHANG | os.WUNTRACED)
        except ChildProcessError:
            return "the process that scanned ended"
        if pid and os.WIFSTOPPED(status):
            self.kill()
            return None
        if not pid:
            return None
        code = os.waitstatus_to_exitcode(status)
        if code < 0:
            return f"the process that scanned died of {signal.Signals(-code).name}"
        return f"the process that scanned ended with status {code}"

    def close(self) -> None:
        """Close its pipes, after its end."""
        self.end()
        os.close(self.answers)


def _pipe(undo: contextlib.ExitStack) -> tuple[int, int]:
    read, write = os.pipe()
    undo.callback(os.close, read)
    undo.callback(os.close, write)
    return read, write


def _fork(settings: ReadSettings, orders: int, answers: int) -> int:
    dies_with_scanner = die_with_parent()
    # A handler of this process must not run in the child.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED_SIGNALS)
    try:
        pid = os.fork()
        if pid == 0:
            dies_with_scanner()
            _become_reader(settings, orders, answers)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return pid


def _become_reader(settings: ReadSettings, orders: int, answers: int) -> NoReturn:
    status = 1
    try:
        os.setsid()
        for number in HANDLED_SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        keep = duplicate_above_stdio(orders), duplicate_above_stdio(answers)
        close_descriptors_except(keep)
        gc.freeze()
        run_reader(settings, *keep)
        status = 0
    finally:
        os._exit(status)
