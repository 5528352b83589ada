"""One Redis of the soak: a process with a directory of its own, whose faults are seen to strike."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

from canhazgpu_soak import process_signals
from canhazgpu_soak.stores.port import Struck, nothing_to_undo

START_LIMIT_S = 60.0
COMMAND_S = 10.0
DATA = "appendonlydir"
NOWHERE = ("REPLICAOF", "127.0.0.1", "1")
CONFIG = """\
port {port}
bind 127.0.0.1
unixsocket {root}/redis.sock
unixsocketperm 600
dir {root}
logfile redis.log
save ""
"""
PERSISTENT = """\
appendonly yes
appendfsync always
auto-aof-rewrite-percentage 0
repl-diskless-sync-delay 0
"""


class Server:
    """It keeps all data that it had acknowledged, whatever ends it.

    Without a port only root reaches it. `settings` are lines of its configuration.
    """

    def __init__(
        self,
        root: Path,
        port: int = 0,
        settings: str = PERSISTENT,
        arguments: tuple[str, ...] = (),
        environ: dict[str, str] | None = None,
    ) -> None:
        self.root = root
        self.port = port
        self._arguments = arguments
        self._environ = {"PATH": os.defpath, **(environ or {})}
        self._process: subprocess.Popen[bytes] | None = None
        root.mkdir(mode=0o755)
        (root / "redis.conf").write_text(CONFIG.format(root=root, port=port) + settings)

    @property
    def pid(self) -> int:
        """The process that serves, 0 without one."""
        return 0 if self._process is None else self._process.pid

    def start(self) -> None:
        """Start it, if it does not run, and return when it answers."""
        if self._process is not None:
            return
        self._process = subprocess.Popen(
            ["redis-server", str(self.root / "redis.conf"), *self._arguments],  # noqa: S607 - from PATH
            env=self._environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        ends_at = time.monotonic() + START_LIMIT_S
        while self.command("PING") != "PONG":
            if time.monotonic() > ends_at:
                raise RuntimeError(f"the store in {self.root} does not start")
            time.sleep(0.05)

    def end(self) -> None:
        """End it as a crash would, if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def kill(self) -> Struck:
        """End it as a crash would; undone by a start with its data."""
        if self._process is None or not process_signals.kill(self.pid, lambda: True):
            return None
        self.end()
        return self.start

    def stop(self) -> Struck:
        """Stop its process: connections are accepted, and nobody answers."""
        pid = self.pid
        if not pid or not process_signals.stop(pid, lambda: True):
            return None
        return lambda: process_signals.go_on(pid)

    def flush(self) -> Struck:
        """Remove all its data; nothing was struck where there were none."""
        had = self.command("DBSIZE")
        done = self.command("FLUSHALL")
        return nothing_to_undo if had not in ("", "0") and done == "OK" else None

    def fill(self) -> Struck:
        """Leave it no memory: it refuses all changes."""
        self.command("CONFIG", "SET", "maxmemory", "1")
        refused = self.command("SET", "soak:probe", "x").startswith("OOM")
        if not refused:
            self.empty()
        return self.empty if refused else None

    def empty(self) -> None:
        """Let it have all memory again."""
        self.command("CONFIG", "SET", "maxmemory", "0")

    def make_replica(self) -> Struck:
        """Make it a replica of a server that does not answer: it refuses all changes."""
        self.command(*NOWHERE)
        if not self.command("SET", "soak:probe", "x").startswith("READONLY"):
            return None
        return self.make_primary

    def make_primary(self) -> None:
        """Let it decide for itself again."""
        self.command("REPLICAOF", "NO", "ONE")

    def copy_to(self, copy: Path) -> None:
        """Keep a copy of its data. What is written meanwhile is in it in part: a moment's state."""
        shutil.rmtree(copy, ignore_errors=True)
        if (self.root / DATA).exists():
            shutil.copytree(self.root / DATA, copy)

    def put_back(self, copy: Path) -> Struck:
        """Start it with the copy's data, after a crash."""
        if not copy.exists():
            return None
        self.end()
        shutil.rmtree(self.root / DATA, ignore_errors=True)
        shutil.copytree(copy, self.root / DATA)
        self.start()
        return nothing_to_undo

    def time_s(self) -> float:
        """Return the time by its clock; 0 where it does not answer."""
        answer = self.command("TIME").split()
        return float(answer[0]) if answer and answer[0].isdecimal() else 0.0

    def command(self, *words: str) -> str:
        """Return the answer as redis-cli prints it; empty where there is none."""
        try:
            done = subprocess.run(
                ["redis-cli", "-s", str(self.root / "redis.sock"), *words],  # noqa: S607 - from PATH
                capture_output=True,
                text=True,
                timeout=COMMAND_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return ""
        return done.stdout.strip()
