"""A program on a terminal of its own, with a person's hands on it."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time
from collections.abc import Sequence
from pathlib import Path

TIMEOUT_S = 120.0


class Terminal:
    """Runs the program on a new terminal of that size; what it prints is kept in `output`."""

    def __init__(
        self,
        command: Sequence[str],
        env: dict[str, str],
        *,
        rows: int = 24,
        columns: int = 100,
        cwd: Path | None = None,
    ) -> None:
        self.output = ""
        self.status: int | None = None
        self._connected = True
        self.pid, self._terminal = pty.fork()
        if self.pid == 0:
            try:
                # They are ignored in what a script starts in the background, but not in a shell.
                signal.signal(signal.SIGINT, signal.SIG_DFL)
                signal.signal(signal.SIGQUIT, signal.SIG_DFL)
                _set_size(0, rows, columns)
                os.chdir(cwd or ".")
                os.execvpe(command[0], list(command), env)
            finally:
                os._exit(127)

    def resize(self, rows: int, columns: int) -> None:
        """Change the size; the kernel tells the program by SIGWINCH."""
        _set_size(self._terminal, rows, columns)

    def settings(self) -> list[object]:
        """How the terminal is set: echo, line editing, what its keys do."""
        return termios.tcgetattr(self._terminal)

    def type(self, keys: str) -> None:
        os.write(self._terminal, keys.encode())

    def wait_for(self, text: str) -> str:
        """Return what was printed until the text came, and take it out of `output`."""
        deadline = time.monotonic() + TIMEOUT_S
        while text not in self.output:
            assert time.monotonic() < deadline, f"no {text!r} in {self.output!r}"
            ended = self._read(1.0) is None
            assert not ended or text in self.output, f"ended, no {text!r} in {self.output!r}"
        before, _, self.output = self.output.partition(text)
        return before + text

    def wait_stopped(self) -> None:
        """Wait until the program is stopped, as by Ctrl-Z."""
        _, status = os.waitpid(self.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        while self._read(0.05):
            pass

    def hang_up(self) -> None:
        """Take the terminal away, as a connection that is lost does."""
        os.close(self._terminal)
        self._connected = False

    def is_running(self) -> bool:
        """Tell whether the program has not ended yet."""
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.status = os.waitstatus_to_exitcode(status) if pid else None
        return self.status is None

    def wait_end(self) -> int:
        """Return the exit status, or minus the signal; all that was printed is in `output`."""
        deadline = time.monotonic() + TIMEOUT_S
        while self._connected and self._read(1.0) is not None:
            assert time.monotonic() < deadline, f"it does not end: {self.output!r}"
        while self.is_running():
            assert time.monotonic() < deadline, f"it does not end: {self.output!r}"
            time.sleep(0.02)
        assert self.status is not None
        return self.status

    def _read(self, wait_s: float) -> bool | None:
        """Read on; False where nothing came in time, None at the end."""
        if not select.select([self._terminal], [], [], wait_s)[0]:
            return False
        try:
            data = os.read(self._terminal, 65536)
        except OSError:  # how Linux says that nobody has the terminal open any more
            return None
        self.output += data.decode(errors="replace")
        return True

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self.is_running():
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        if self._connected:
            self.hang_up()


def _set_size(terminal: int, rows: int, columns: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
