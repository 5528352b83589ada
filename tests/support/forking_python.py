"""Runs of Python for which modules are imported once, and not for each run.

Importing is most of what a hook or a command costs, and tests run them by the hundred. A server,
one interpreter, forks for each run: a process of its own, with its own environment, output and end.
It has the modules that earlier runs imported. What a start costs and imports is tested with
interpreters that are new.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

SERVER = Path(__file__).with_name("forking_server.py")
IN_CHILDREN = [
    "pynvml",
    "canhazgpu.probe.nvml.reader",
    "canhazgpu.probe.nvidia_smi.reader",
    "canhazgpu.probe.processes.describe",
]
"""What children of runs import, of which no run tells."""


@functools.cache
def own_interpreter() -> ForkingPython:
    """Return the one with the Python of the tests, which has what they test."""
    return ForkingPython()


class ForkingPython:
    """`python -I`, run by forking; used as a context manager, whose end ends the server.

    Without that it ends with whoever started it.
    """

    def __init__(
        self, python: Path = Path(sys.executable), variables: Mapping[str, str] | None = None
    ) -> None:
        """Start the server; it alone has these variables, and runs have their own."""
        self._modules = IN_CHILDREN
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            # An address that the kernel chooses.
            listener.bind("")
            listener.listen()
            self._address = listener.getsockname()
            self._server = subprocess.Popen(
                [python, "-I", str(SERVER), str(listener.fileno())],
                pass_fds=(listener.fileno(),),
                stdin=subprocess.DEVNULL,
                env=dict(variables or {}),
            )

    def __enter__(self) -> ForkingPython:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.kill()
        self._server.wait()

    def run(
        self,
        arguments: Sequence[str],
        environ: Mapping[str, str],
        timeout_s: float,
        user: str = "root",
        directory: Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run `python -I ARGUMENTS`, ``-m module …`` or ``-c program …``, to its end."""
        request = {
            "arguments": arguments,
            "environ": environ,
            "modules": self._modules,
            "user": user,
            "directory": str(directory or Path.cwd()),
        }
        with _Outputs() as outputs, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
            server.settimeout(timeout_s)
            server.connect(self._address)
            outputs.send(server, json.dumps(request).encode())
            status = self._ended(server, timeout_s)
            out, err = outputs.read()
        return subprocess.CompletedProcess(["python", "-I", *arguments], status, out, err)

    def _ended(self, server: socket.socket, timeout_s: float) -> int:
        pid = int(server.recv(100))
        try:
            status, report = server.recv(16).decode(), server.recv(1 << 20)
        except TimeoutError:
            os.kill(pid, signal.SIGKILL)
            raise subprocess.TimeoutExpired(str(pid), timeout_s) from None
        self._modules = json.loads(report) if report else self._modules
        return int(status)


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
        """Hand over the request, in a file for its size, and the ends to write to."""
        with os.fdopen(os.memfd_create("request"), "wb") as file:
            file.write(request)
            file.flush()
            socket.send_fds(server, [b"run"], [file.fileno(), *self._write_ends])
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
