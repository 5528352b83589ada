"""Run a function in a child process that may hang without hanging its caller.

Driver calls can block in the kernel, where neither a signal nor the time-out of a thread ends them.
The child shares nothing with its parent: it has its own session, no terminal and only the result
pipe as descriptor. A child that cannot be killed therefore does not block the caller and keeps no
other pipe open. Processes that the child starts are killed with it at the deadline.

The child dies with the thread that started it, so keep that thread until the result is there.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import time
from collections.abc import Callable, Iterable

from canhazgpu.node.daemonize import close_descriptors_except, duplicate_above_stdio

PR_SET_PDEATHSIG = 1  # linux/prctl.h
EXIT_GRACE_S = 0.1
"""Least time for the child to exit after its last byte, and after it was killed."""
EXIT_POLL_INTERVAL_S = 0.001
ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
"""What ends the child, also where its parent ignores it."""


class BoundedChildError(Exception):
    """The child returned no result; the text says whether it hung, or how it ended."""


class BoundedChild:
    """A forked child computing `work()`; its result is read back as bytes.

    Raises `BoundedChildError` where no child can be started.
    """

    def __init__(self, work: Callable[[], bytes], timeout_s: float) -> None:
        self._deadline = time.monotonic() + timeout_s
        self._timeout_s = timeout_s
        self._received = bytearray()
        parent = os.getpid()
        try:
            self._result, child_end = os.pipe()
        except OSError as exc:
            raise BoundedChildError(f"cannot start a process: {exc.strerror}") from exc
        # A Ctrl-C or Ctrl-Z reaches the child too, before it has left the terminal: the parent's
        # handlers must not run there, and what one raises while Python forks would be lost.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            self._pid = os.fork()
        except OSError as exc:
            os.close(self._result)
            raise BoundedChildError(f"cannot start a process: {exc.strerror}") from exc
        else:
            if self._pid == 0:
                _run_child(work, child_end, parent, mask)
        finally:
            os.close(child_end)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    @property
    def descriptor(self) -> int:
        """What becomes readable when there is more of the result, or its end."""
        return self._result

    @property
    def left_s(self) -> float:
        """How long the child may still take, in seconds."""
        return max(self._deadline - time.monotonic(), 0.0)

    def result(self) -> bytes:
        """Return what `work` returned; raises `BoundedChildError` at the deadline or a crash.

        Call it once: it reaps the child.
        """
        while (found := self.take()) is None:
            _wait_readable(self._result, self.left_s)
        return found

    def take(self) -> bytes | None:
        """Return the result once it is there, and None before that; see `result`."""
        try:
            if not self._is_complete():
                if self.left_s > 0:
                    return None
                raise TimeoutError
            status = self._exit_status(max(self.left_s, EXIT_GRACE_S))
        except TimeoutError as exc:
            self._kill()
            os.close(self._result)
            raise BoundedChildError(f"no answer within {self._timeout_s:.3g} s") from exc
        os.close(self._result)
        if status != 0:
            raise BoundedChildError(_exit_text(status))
        return bytes(self._received)

    def _is_complete(self) -> bool:
        """Read what there is; return whether that was all."""
        while _wait_readable(self._result, 0):
            chunk = os.read(self._result, 65536)
            if not chunk:
                return True
            self._received += chunk
        return False

    def _kill(self) -> None:
        """Kill the child and all that it started, and reap it, if it can be killed."""
        with contextlib.suppress(ProcessLookupError):
            # It has its own process group; before it made that, it started no process.
            os.killpg(self._pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        with contextlib.suppress(TimeoutError):
            self._exit_status(EXIT_GRACE_S)

    def _exit_status(self, wait_s: float) -> int:
        """Return the child's exit status; raises `TimeoutError` where it does not exit in time.

        A process that ignores SIGCHLD, which a daemon may let it inherit, gets no status. The
        return value is then 0, and the caller judges the child by its output alone.
        """
        try:
            _wait_for_exit(self._pid, wait_s)
            pid, status = os.waitpid(self._pid, os.WNOHANG)
        except ChildProcessError:
            return 0
        if not pid:
            raise TimeoutError
        return os.waitstatus_to_exitcode(status)


def _wait_readable(descriptor: int, wait_s: float) -> bool:
    # Not select.select: it refuses descriptors from 1024 up.
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(max(wait_s, 0) * 1000))


def _wait_for_exit(pid: int, wait_s: float) -> None:
    """Return when the child has exited, without reaping it, or when the time is over."""
    try:
        watch = os.pidfd_open(pid)
    except OSError:
        # Before Linux 5.3, or where a container's seccomp profile forbids it.
        _poll_for_exit(pid, time.monotonic() + wait_s)
        return
    try:
        _wait_readable(watch, wait_s)
    finally:
        os.close(watch)


def _poll_for_exit(pid: int, deadline: float) -> None:
    while time.monotonic() < deadline:
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return
        time.sleep(EXIT_POLL_INTERVAL_S)


def _exit_text(status: int) -> str:
    if status < 0:
        return f"the child process died of {signal.Signals(-status).name}"
    return f"the child process ended with status {status}"


def die_with_parent(parent: int | None = None) -> Callable[[], None]:
    """Return a function that a new process calls first, so that it dies with its parent.

    The parent calls this before the fork. Where the new process calls it, `parent` is the parent's
    pid.
    """
    prctl, expected = ctypes.CDLL(None).prctl, parent or os.getpid()

    def arrange() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != expected:
            os._exit(1)

    return arrange


def _run_child(work: Callable[[], bytes], result: int, parent: int, mask: Iterable[int]) -> None:
    """Write the result of `work`, then exit without running any code of the parent."""
    status = 1
    try:
        die_with_parent(parent)()
        with os.fdopen(_detach_from_parent(result, mask), "wb") as stream:
            stream.write(work())
        status = 0
    finally:
        os._exit(status)


def _detach_from_parent(result: int, mask: Iterable[int]) -> int:
    """Close everything of the parent but the result pipe; return the descriptor of that."""
    os.setsid()
    keep = duplicate_above_stdio(result)
    for number in signal.valid_signals():
        if number in ENDING_SIGNALS or callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    # Without a terminal, a Ctrl-Z from before that does nothing by default.
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    signal.set_wakeup_fd(-1)
    close_descriptors_except({keep})
    return keep
