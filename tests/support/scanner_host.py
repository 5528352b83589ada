"""The listener's part for the scanner: a process that owns the socket, and forks when it is asked.

It is forked from the test's process, and so has its environment and all that it patched.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from polling import poll_until

from canhazgpu.agent.scanner import client
from canhazgpu.agent.scanner.server import serve
from canhazgpu.agent.socket_files import SCANNER_SOCKET


def wait_for_scanner(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let requests wait for as long as they have: the test's machine may be slow."""
    monkeypatch.setattr(client, "MAX_TAKEN_TIME_S", 60.0)
    monkeypatch.setattr(client, "TAKEN_TIME_SHARE", 1.0)


class ScannerHost:
    """A scanner's socket in a directory; the process behind it starts with the first use."""

    def __init__(self, directory: Path, idle_s: float = 30.0) -> None:
        self.socket_path = directory / SCANNER_SOCKET
        self._idle_s = idle_s
        self._pid = 0

    def start(self) -> None:
        """Listen; does nothing if it does."""
        if self._pid:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
            listening.bind(str(self.socket_path))
            self.socket_path.chmod(0o600)
            listening.listen(64)
            self._pid = os.fork()
            if self._pid == 0:
                _exit_after(lambda: _host(listening, self._idle_s))

    @property
    def pid(self) -> int:
        """The process that owns the socket."""
        return self._pid

    def scanner(self) -> int:
        """The pid of the scanner, 0 for none."""
        return next(iter(children_of(self._pid)), 0)

    def readers(self) -> list[int]:
        """The pids of the scanner's readers."""
        return children_of(self.scanner())

    def stop(self) -> None:
        """End it, and wait for the end of the scanner."""
        if self._pid:
            scanner = self.scanner()
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            self._pid = 0
            poll_until(lambda: not is_running(scanner), "the end of the scanner")


def children_of(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        return [int(one) for one in text.split() if is_running(int(one))]
    return []


def is_running(pid: int) -> bool:
    """Whether it has not ended; a zombie has. Process 0 is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def _exit_after(work: Callable[[], None]) -> None:
    try:
        work()
    finally:
        os._exit(1)


def _host(listening: socket.socket, idle_s: float) -> None:
    """Fork a scanner whenever somebody connects and there is none."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    parent = os.getpid()
    while True:
        select.select([listening], [], [])
        pid = os.fork()
        if pid == 0:
            serve(listening, idle_s=idle_s, parent=parent)
            os._exit(0)
        os.waitpid(pid, 0)
