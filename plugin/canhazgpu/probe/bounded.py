"""Run a function in a child process that may hang without hanging its caller.

Driver calls can block in the kernel where no signal and no thread time-out reaches them. The child
holds nothing of its parent: its own session, no terminal, no descriptors but the result pipe. One
that cannot be killed therefore neither keeps a hook's caller waiting nor a pipe open.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import time
from collections.abc import Callable

PR_SET_PDEATHSIG = 1  # linux/prctl.h
MAX_DESCRIPTOR = 4096
"""Descriptors above this are not closed in the child; our callers have a handful."""
REAP_TRIES = 20
REAP_PAUSE_S = 0.005


class BoundedChildError(Exception):
    """The child gave no result; the text says whether it hung or died, and of what."""


class BoundedChild:
    """A forked child computing `work()`; its result is read back as bytes."""

    def __init__(self, work: Callable[[], bytes], timeout_s: float) -> None:
        self._deadline = time.monotonic() + timeout_s
        self._timeout_s = timeout_s
        self._result, child_end = os.pipe()
        parent = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            _run_child(work, child_end, parent)
        os.close(child_end)

    def result(self) -> bytes:
        """Return what `work` returned; raises `BoundedChildError` at the deadline or a crash."""
        chunks = []
        try:
            while chunk := self._read():
                chunks.append(chunk)
        except TimeoutError as exc:
            self._end()
            raise BoundedChildError(f"no answer within {self._timeout_s:g} s") from exc
        finally:
            os.close(self._result)
        status = self._end()
        if status != 0:
            raise BoundedChildError(_death(status))
        return b"".join(chunks)

    def _read(self) -> bytes:
        remaining = self._deadline - time.monotonic()
        ready, _, _ = select.select([self._result], [], [], max(remaining, 0))
        if not ready:
            raise TimeoutError
        return os.read(self._result, 65536)

    def _end(self) -> int | None:
        """Collect the child's exit status, killing it if need be; None if it cannot even die."""
        for attempt in range(REAP_TRIES):
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            if attempt == 1:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._pid, signal.SIGKILL)
            time.sleep(REAP_PAUSE_S)
        return None


def _death(status: int | None) -> str:
    if status is None:
        return "the child process cannot be ended"
    if status < 0:
        return f"the child process died of {signal.Signals(-status).name}"
    return f"the child process ended with status {status}"


def _run_child(work: Callable[[], bytes], result: int, parent: int) -> None:
    """Compute and write the result, then leave without running anything of the parent's."""
    status = 1
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() == parent:
            _detach(result)
            with os.fdopen(result, "wb") as stream:
                stream.write(work())
            status = 0
    finally:
        os._exit(status)


def _detach(keep: int) -> None:
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.closerange(3, keep)
    os.closerange(keep + 1, MAX_DESCRIPTOR)
