"""Runs of Python for which modules are imported once, and not for each run.

Importing is most of what a hook or a command costs, and tests run them by the hundred. A server,
one interpreter, forks for each run: a process of its own, with its own environment, output and end.
It has the modules that earlier runs imported. What a start costs and imports is tested with
interpreters that are new.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TextIO

SERVER = Path(__file__).with_name("forking_server.py")
IN_CHILDREN = [
    "pynvml",
    "canhazgpu.probe.nvml.reader",
    "canhazgpu.probe.nvidia_smi.reader",
    "canhazgpu.probe.processes.describe",
]
"""What children of runs import, of which no run tells."""
ROOM = "x" * 32_000
"""Where each run's own environment is written, for whoever reads it in /proc."""
AGENTS_IMPORTS = """
import sys
import canhazgpu.cli.commands.agent.run
import canhazgpu.cli.main
import canhazgpu.cli.through_agent.runner
from canhazgpu.agent.listener import process
from canhazgpu.agent.listener.preload import import_everything
import_everything()
del sys.modules["canhazgpu.cli.main"]  # it is what runs
"""


def kept_to_the_end(python: ForkingPython) -> ForkingPython:
    """Have it end with these tests: they know when, and it learns of it within seconds."""
    atexit.register(python.end)
    return python


@functools.cache
def own_interpreter() -> ForkingPython:
    """Return the one with the Python of the tests, which has what they test."""
    return kept_to_the_end(ForkingPython())


@functools.cache
def agents_interpreter() -> ForkingPython:
    """Return one that has imported what an agent imports at its start, and nothing else."""
    made = kept_to_the_end(ForkingPython())
    done = made.run(["-c", AGENTS_IMPORTS], {}, timeout_s=60)
    assert done.returncode == 0, done.stderr
    return made


class ForkingPython:
    """`python -I`, run by forking; used as a context manager, whose end ends the server.

    Without that it ends with whoever started it.
    """

    def __init__(
        self, python: Path = Path(sys.executable), variables: Mapping[str, str] | None = None
    ) -> None:
        """Start the server; it alone has these variables, and runs have their own."""
        self._modules = IN_CHILDREN
        self._owner = os.getpid()
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            # An address that the kernel chooses.
            listener.bind("")
            listener.listen()
            self._address = listener.getsockname()
            self._server = subprocess.Popen(
                [python, "-I", str(SERVER), str(listener.fileno())],
                pass_fds=(listener.fileno(),),
                stdin=subprocess.DEVNULL,
                env={**(variables or {}), "ROOM": ROOM},
            )

    def __enter__(self) -> ForkingPython:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """End the server, unless this is a child of whoever started it."""
        if os.getpid() == self._owner:
            self._server.kill()
            self._server.wait()

    def run(
        self,
        arguments: Sequence[str],
        environ: Mapping[str, str],
        timeout_s: float,
        user: str = "root",
        directory: Path | None = None,
    ) -> CompletedRun:
        """Run `python -I ARGUMENTS`, ``-m module …`` or ``-c program …``, to its end."""
        request = self._request(arguments, environ, user, directory or Path.cwd())
        with _Outputs() as outputs, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
            server.settimeout(timeout_s)
            server.connect(self._address)
            outputs.send(server, request)
            pid, status = self._ended(server, timeout_s)
            out, err = outputs.read()
        return CompletedRun(["python", "-I", *arguments], status, out, err, pid)

    def start(self, arguments: Sequence[str], environ: Mapping[str, str]) -> ForkedProcess:
        """Start `python -I ARGUMENTS` with the outputs of this process, and end it with this one.

        What it imports, later runs do not have.
        """
        request = self._request(arguments, environ, "root", Path.cwd(), ends_with_tests=True)
        return ForkedProcess(self._started(request, (1, 2)))

    def start_command(
        self, arguments: Sequence[str], environ: Mapping[str, str], user: str, directory: Path
    ) -> ForkedCommand:
        """Start `python -I ARGUMENTS` as a user, whose outputs are collected."""
        request = self._request(arguments, environ, user, directory)
        out, err = os.pipe(), os.pipe()
        try:
            server = self._started(request, (out[1], err[1]))
        finally:
            os.close(out[1])
            os.close(err[1])
        return ForkedCommand(server, self._learn, out[0], err[0])

    def _started(self, request: bytes, outputs: Sequence[int]) -> socket.socket:
        server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        server.connect(self._address)
        _send(server, request, outputs)
        return server

    def _learn(self, report: bytes) -> None:
        """Import beforehand what a run imported."""
        self._modules = json.loads(report) if report else self._modules

    def _request(
        self,
        arguments: Sequence[str],
        environ: Mapping[str, str],
        user: str,
        directory: Path,
        *,
        ends_with_tests: bool = False,
    ) -> bytes:
        request = {
            "arguments": arguments,
            "environ": environ,
            "modules": self._modules,
            "user": user,
            "directory": str(directory),
            "ends_with_tests": ends_with_tests,
        }
        return json.dumps(request).encode()

    def _ended(self, server: socket.socket, timeout_s: float) -> tuple[int, int]:
        """Return the run's pid and its status."""
        pid = int(server.recv(100))
        try:
            status, report = server.recv(16).decode(), server.recv(1 << 20)
        except TimeoutError:
            os.kill(pid, signal.SIGKILL)
            raise subprocess.TimeoutExpired(str(pid), timeout_s) from None
        self._learn(report)
        return pid, int(status)


class CompletedRun(subprocess.CompletedProcess[str]):
    """A run that has ended; it had this pid."""

    def __init__(self, args: list[str], status: int, out: str, err: str, pid: int) -> None:
        super().__init__(args, status, out, err)
        self.pid = pid


class ForkedProcess:
    """A run that stays; as much of `subprocess.Popen` as tests of processes need."""

    def __init__(self, server: socket.socket) -> None:
        self._server = server
        self.pid = int(server.recv(100))
        self.returncode: int | None = None

    def poll(self) -> int | None:
        return self._received(0)

    def wait(self, timeout: float | None = None) -> int:
        status = self._received(timeout)
        if status is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
        return status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _received(self, timeout_s: float | None) -> int | None:
        if self.returncode is None:
            self._server.settimeout(timeout_s)
            with contextlib.suppress(TimeoutError, BlockingIOError):
                self.returncode = int(self._server.recv(16))
                self._ended()
                self._server.close()
        return self.returncode

    def _ended(self) -> None:
        """Take what else the server says of a run that has ended."""


class ForkedCommand(ForkedProcess):
    """A run whose outputs are collected, as those of a `subprocess.Popen` with two pipes."""

    def __init__(
        self, server: socket.socket, learn: Callable[[bytes], None], out: int, err: int
    ) -> None:
        super().__init__(server)
        self._learn = learn
        self.stdout = os.fdopen(out, encoding="utf-8")
        self.stderr = os.fdopen(err, encoding="utf-8")
        self._texts = ["", ""]
        self._readers: list[threading.Thread] = []

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Read both outputs to their ends, and wait for the run."""
        deadline = None if timeout is None else time.monotonic() + timeout
        if not self._readers:
            self._readers = [
                threading.Thread(target=self._read, args=(place, stream), daemon=True)
                for place, stream in enumerate((self.stdout, self.stderr))
            ]
            for reader in self._readers:
                reader.start()
        for reader in self._readers:
            reader.join(_left(deadline))
            if reader.is_alive():
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
        self.wait(_left(deadline))
        return self._texts[0], self._texts[1]

    def _read(self, place: int, stream: TextIO) -> None:
        with stream:
            self._texts[place] = stream.read()

    def _ended(self) -> None:
        self._server.settimeout(None)
        self._learn(self._server.recv(1 << 20))


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(deadline - time.monotonic(), 0.0)


def _send(server: socket.socket, request: bytes, outputs: Sequence[int]) -> None:
    """Hand over the request, in a file for its size, and the ends to write to."""
    with os.fdopen(os.memfd_create("request"), "wb") as file:
        file.write(request)
        file.flush()
        socket.send_fds(server, [b"run"], [file.fileno(), *outputs])


class _Outputs:
    """Two pipes, read to the ends in threads, as `subprocess` does."""

    def __enter__(self) -> _Outputs:
        self._texts = ["", ""]
        pipes = [os.pipe() for _ in self._texts]
        self._write_ends = [write for _, write in pipes]
        self._threads = [
            threading.Thread(target=self._collect, args=(place, read), daemon=True)
            for place, (read, _) in enumerate(pipes)
        ]
        for thread in self._threads:
            thread.start()
        return self

    def send(self, server: socket.socket, request: bytes) -> None:
        _send(server, request, self._write_ends)
        self._close()

    def read(self) -> tuple[str, str]:
        for thread in self._threads:
            thread.join()
        return self._texts[0], self._texts[1]

    def __exit__(self, *_: object) -> None:
        self._close()

    def _collect(self, place: int, read: int) -> None:
        with os.fdopen(read, encoding="utf-8", errors="strict") as stream:
            self._texts[place] = stream.read()

    def _close(self) -> None:
        while self._write_ends:
            os.close(self._write_ends.pop())
