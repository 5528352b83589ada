"""The server of `forking_python`: `python -I forking_server.py LISTENER`."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import os
import pwd
import runpy
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any, TextIO

WAIT_MS = 2000
PR_SET_PDEATHSIG, PR_SET_DUMPABLE = 1, 4
ENV_START, ENV_END = 47, 48
"""Fields of /proc/PID/stat after the command: where the memory of /proc/PID/environ is."""
Request = dict[str, Any]


def next_run(listener: socket.socket) -> Callable[[], None]:
    """Serve; returns in the process of each run, which is to call what it is given and end."""
    parent = os.getppid()
    under_way: dict[int, Attended] = {}
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    while os.getppid() == parent:
        for fd, _ in poll.poll(WAIT_MS):
            if fd in under_way:
                poll.unregister(fd)
                under_way.pop(fd).report_end()
                continue
            connection, _ = listener.accept()
            request, outputs = received(connection)
            import_all(request["modules"])
            read, write = os.pipe()
            pid = os.fork()
            if pid == 0:
                listener.close()
                for one in under_way.values():
                    one.close()
                connection.close()
                os.close(read)
                return prepared(request, outputs, write)
            for one in (write, *outputs):
                os.close(one)
            attended = Attended(connection, pid, read)
            under_way[attended.ended] = attended
            poll.register(attended.ended, select.POLLIN)
            with contextlib.suppress(OSError):
                connection.send(str(pid).encode())
    return lambda: None


class Attended:
    """A run, whose end and modules are to be reported; `ended` can be read at its end."""

    def __init__(self, connection: socket.socket, pid: int, report: int) -> None:
        self._connection = connection
        self._pid = pid
        self._report = report
        self.ended = os.pidfd_open(pid)

    def report_end(self) -> None:
        _, status = os.waitpid(self._pid, 0)
        # A child of the run may have the other end open still.
        os.set_blocking(self._report, False)
        report = b""
        with contextlib.suppress(BlockingIOError):
            report = os.read(self._report, 1 << 16)
        with contextlib.suppress(OSError):
            self._connection.send(str(os.waitstatus_to_exitcode(status)).encode())
            self._connection.send(report)
        self.close()

    def close(self) -> None:
        self._connection.close()
        os.close(self.ended)
        os.close(self._report)


def received(connection: socket.socket) -> tuple[Request, list[int]]:
    connection.settimeout(None)
    _, (file, *outputs), _, _ = socket.recv_fds(connection, 16, 3)
    with os.fdopen(file, "rb") as stream:
        stream.seek(0)
        return json.load(stream), outputs


def import_all(names: list[str]) -> None:
    """Import what earlier runs did, in their order; runs share its memory."""
    missing = [name for name in names if name not in sys.modules]
    for name in missing:
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    if missing:
        gc.collect()
        gc.freeze()


def prepared(request: Request, outputs: list[int], write: int) -> Callable[[], None]:
    """Return what a process that was forked for a run is to call."""
    exit_now = os._exit
    if request["ends_with_tests"]:
        end_with_parent()
        os.close(write)
    else:
        report_at_the_end(write)
    return lambda: end_as_python(lambda: run(request, outputs), exit_now)


def end_with_parent() -> None:
    """End when whoever forked this ends: the server does with the tests."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def report_at_the_end(write: int) -> None:
    """Write the names of all modules when this process ends by itself or becomes a program."""
    pid, file, exit_now, execute = os.getpid(), os.fstat(write).st_ino, os._exit, os.execve

    def report() -> None:
        with contextlib.suppress(OSError):
            if os.getpid() == pid and os.fstat(write).st_ino == file:
                os.write(write, json.dumps([*sys.modules]).encode())
                os.close(write)

    def report_and_exit(status: int) -> None:
        report()
        exit_now(status)

    def report_and_execute(*arguments: Any) -> None:
        report()
        execute(*arguments)

    atexit.register(report)
    os._exit = report_and_exit  # type: ignore[assignment]
    os.execve = report_and_execute  # type: ignore[assignment]


def end_as_python(work: Callable[[], None], exit_now: Callable[[int], None]) -> None:
    """Run `work`, and end as Python does, but free no module: that takes longer than most runs.

    What is not an end by `sys.exit` is left to Python.
    """
    status = 0
    try:
        work()
    except SystemExit as end:
        if not isinstance(end.code, int | None):
            raise
        status = end.code or 0
    threading._shutdown()  # type: ignore[attr-defined] # waits for threads
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and not stream.closed:
            stream.flush()
    exit_now(status & 0xFF)


def opened(stream: TextIO, output: int) -> TextIO:
    """Put an output in the place of a stream's file; returns a stream as that was."""
    os.dup2(output, stream.fileno())
    os.close(output)
    return open(
        stream.fileno(), "w", encoding=stream.encoding, errors=stream.errors, closefd=False,
        buffering=1 if stream is sys.stderr else -1,
    )  # fmt: skip


def become(user: str) -> None:
    account = pwd.getpwnam(user)
    os.initgroups(user, account.pw_gid)
    os.setgid(account.pw_gid)
    os.setuid(account.pw_uid)
    # As after an exec: without it /proc/self stays root's.
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)


def show_environment() -> None:
    """Have /proc/PID/environ, too, show what this process has, and not the server's."""
    with open("/proc/self/stat") as stream:  # noqa: PTH123 - without pathlib
        fields = stream.read().rpartition(")")[2].split()
    start, end = int(fields[ENV_START]), int(fields[ENV_END])
    shown = b"".join(b"%s=%s\0" % pair for pair in os.environb.items())
    if len(shown) <= end - start:
        ctypes.memset(start, 0, end - start)
        ctypes.memmove(start, shown, len(shown))


def run(request: Request, outputs: list[int]) -> None:
    """Become the run: its output, its user, its environment, its arguments."""
    sys.stdout = sys.__stdout__ = opened(sys.stdout, outputs[0])
    sys.stderr = sys.__stderr__ = opened(sys.stderr, outputs[1])
    os.chdir(request["directory"])
    if request["user"] != "root":
        become(request["user"])
    os.environ.clear()
    os.environ.update(request["environ"])
    show_environment()
    option, what, *arguments = request["arguments"]
    sys.orig_argv = [sys.executable, "-I", *request["arguments"]]
    sys.argv = [what if option == "-m" else "-c", *arguments]
    if option == "-m":
        sys.modules.pop(what, None)
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})


if __name__ == "__main__":
    next_run(socket.socket(fileno=int(sys.argv[1])))()
