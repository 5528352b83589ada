"""The Redis of the soak: a server of its own that can be killed, stopped, emptied and put back."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from pathlib import Path

START_LIMIT_S = 60.0
COMMAND_S = 60.0
DATA = "appendonlydir"
CONFIG = """\
port 0
unixsocket {root}/redis.sock
unixsocketperm 600
dir {root}
logfile redis.log
save ""
appendonly yes
appendfsync always
auto-aof-rewrite-percentage 0
"""


class Store:
    """It keeps all data that it had acknowledged, whatever ends it. Only root reaches it."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._copy = root / "copy"
        self._process: subprocess.Popen[bytes] | None = None
        root.mkdir(mode=0o755)
        (root / "redis.conf").write_text(CONFIG.format(root=root))

    @property
    def url(self) -> str:
        return f"unix://{self._root}/redis.sock"

    def start(self) -> None:
        """Start it, if it does not run, and return when it answers."""
        if self._process is not None:
            return
        self._process = subprocess.Popen(
            ["redis-server", str(self._root / "redis.conf")],  # noqa: S607 - from PATH
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        ends_at = time.monotonic() + START_LIMIT_S
        while self._command("PING") != "PONG":
            if time.monotonic() > ends_at:
                raise RuntimeError(f"the store in {self._root} does not start")
            time.sleep(0.05)

    def kill(self) -> None:
        """End it as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def signal(self, number: signal.Signals) -> None:
        """Stop it, or let it go on."""
        if self._process is not None:
            self._process.send_signal(number)

    def flush(self) -> None:
        """Remove all its data."""
        self._command("FLUSHALL")

    def keep_copy(self) -> None:
        """Keep a copy of its data. What is written meanwhile is in it in part: a moment's state."""
        shutil.rmtree(self._copy, ignore_errors=True)
        shutil.copytree(self._root / DATA, self._copy)

    def put_back(self) -> bool:
        """Start it with its copy's data, after a crash; false, and nothing done, without a copy."""
        if not self._copy.exists():
            return False
        self.kill()
        shutil.rmtree(self._root / DATA)
        shutil.copytree(self._copy, self._root / DATA)
        self.start()
        return True

    def _command(self, *words: str) -> str:
        done = subprocess.run(
            ["redis-cli", "-s", str(self._root / "redis.sock"), *words],  # noqa: S607 - from PATH
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
        )
        return done.stdout.strip()
