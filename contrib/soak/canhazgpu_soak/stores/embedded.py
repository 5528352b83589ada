"""The store as canhazgpu's own private server, which its processes start anew when it has ended."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from canhazgpu_soak import process_signals
from canhazgpu_soak.clock import SteppedClock
from canhazgpu_soak.stores import port
from canhazgpu_soak.stores.port import Struck, nothing_to_undo

COMMAND_S = 10.0
EMPTY_LIMIT_S = 180.0
"""Nobody may have started the server again for a while, and another fault may have stopped it."""
DATA = "appendonlydir"
WRITER = "canhazgpu"
PIECES = 80
PIECE = 4 * 2**20
"""Together more than the server may have."""
FILL = (
    f"for i = 1, {PIECES} do redis.call('SET', KEYS[1] .. ':' .. i,"
    f" string.rep('x', {PIECE})) end return 'filled'"
)


class EmbeddedStore:
    """One server for both nodes, as on a host with several slurmds.

    Nobody may make it a replica, nor give it a clock: it is started by canhazgpu.
    """

    url = "embedded"

    def __init__(self, root: Path, _clock: SteppedClock) -> None:
        self._root = root / "server"
        self._copy = root / "copy"
        self.settings = f'embedded_dir = "{self._root}"'
        self._is_full = False

    @property
    def faults(self) -> dict[str, Callable[[], Struck]]:
        """Return what makes each kind of fault."""
        return {
            port.KILLED: self._kill,
            port.STOPPED: self._stop,
            port.FLUSHED: lambda: self._replace_data(None),
            port.FULL: self._fill,
            port.PUT_BACK: lambda: self._replace_data(self._copy),
        }

    def start(self) -> None:
        """Leave it to canhazgpu."""

    def close(self) -> None:
        """End it."""
        if pid := self._pid():
            process_signals.kill(pid, lambda: True)

    def keep_copy(self) -> None:
        """Keep a copy of its data."""
        if self._is_full or not (self._root / DATA).exists():
            return
        # A file of it may be renamed meanwhile.
        with contextlib.suppress(shutil.Error, OSError):
            shutil.rmtree(self._copy, ignore_errors=True)
            shutil.copytree(self._root / DATA, self._copy)

    def forget_reservations(self, _node: str) -> bool:
        """Say that it is not done here."""
        return False

    def set_clock(self, _step_s: float) -> bool:
        """Say that it cannot be done."""
        return False

    def _pid(self) -> int:
        """Return its process, 0 without one."""
        try:
            pid = int((self._root / "server.pid").read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return 0
        return pid if b"-server" in command and process_signals.state_of(pid) not in "ZX" else 0

    def _kill(self) -> Struck:
        pid = self._pid()
        return (
            nothing_to_undo
            if pid and process_signals.kill(pid, lambda: self._pid() == pid)
            else None
        )

    def _stop(self) -> Struck:
        pid = self._pid()
        if not pid or not process_signals.stop(pid, lambda: self._pid() == pid):
            return None
        return lambda: process_signals.go_on(pid)

    def _replace_data(self, copy: Path | None) -> Struck:
        """End it, and let the next one have other data, or none."""
        pid = self._pid()
        if (copy and not copy.exists()) or not pid or not process_signals.stop(pid, lambda: True):
            return None
        shutil.rmtree(self._root / DATA, ignore_errors=True)
        if copy:
            shutil.copytree(copy, self._root / DATA)
        return nothing_to_undo if process_signals.kill(pid, lambda: True) else None

    def _fill(self) -> Struck:
        """Fill it with keys of nobody until it refuses more."""
        self._is_full = True
        for number in range(3):
            if "OOM" in self._write("EVAL", FILL, "1", f"soak:{{fill}}:{number}"):
                return self._empty
        self._empty()
        return None

    def _empty(self) -> None:
        for number in range(3):
            names = [f"soak:{{fill}}:{number}:{piece}" for piece in range(1, PIECES + 1)]
            self._write_surely("DEL", *names)
        self._is_full = False

    def _write_surely(self, *words: str) -> None:
        """Repeat it until the server says how many keys it changed; it may be dead or busy."""
        ends_at = time.monotonic() + EMPTY_LIMIT_S
        while not self._write(*words).isdecimal():
            if time.monotonic() > ends_at:
                raise RuntimeError(f"the store in {self._root} stays full")
            time.sleep(0.2)

    def _write(self, *words: str) -> str:
        """Return what the server answers its writer; empty where it does not."""
        command = ["redis-cli", "-s", str(self._root / "server.sock"), "--user", WRITER, *words]
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            done = subprocess.run(
                command,
                env={
                    "PATH": "/usr/bin:/bin",
                    "REDISCLI_AUTH": (self._root / "secret").read_text().strip(),
                },
                capture_output=True,
                text=True,
                timeout=COMMAND_S,
                check=False,
            )
            return done.stdout.strip() + done.stderr.strip()
        return ""
