"""Commands of people: started as a Unix user, watched until they end, and recorded."""

from __future__ import annotations

import itertools
import os
import subprocess
import threading
from collections import Counter
from pathlib import Path

from canhazgpu_soak.cluster import SoakCluster, now
from canhazgpu_soak.load.releases import Release, held_until
from canhazgpu_soak.records import NOTE, RESERVE, RUN, Holder, Request
from demo_cluster.host.user_commands import popen_as

OVERTIME_S = 90.0
"""A command that runs so much longer than it may is hung."""
TRACEBACK = "Traceback (most recent call last)"


class Commands:
    """All commands of the soak; any thread may start one."""

    def __init__(self, cluster: SoakCluster) -> None:
        self.requests: list[Request] = []
        self.reservations: list[Holder] = []
        self.statuses: Counter[str] = Counter()
        self._releases: list[Release] = []
        self._cluster = cluster
        self._numbers = itertools.count(1)
        self._live: dict[int, subprocess.Popen[str]] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._logs = cluster.root / "commands"
        self._logs.mkdir()

    def live(self) -> list[int]:
        """The pids of the commands that run, those included that have become a run's task."""
        with self._lock:
            return [pid for pid, process in self._live.items() if process.poll() is None]

    def end(self) -> None:
        """End all commands; from now on none is started."""
        self._ended.set()
        with self._lock:
            for process in self._live.values():
                process.kill()

    def run(self, user: str, node: str, options: tuple[str, ...], wait_s: float, hold_s: float,
            takes_memory: bool) -> None:  # fmt: skip
        """`canhazgpu run`, until its command has ended."""
        key = f"{RUN}:{next(self._numbers)}"
        task = [str(self._cluster.task), str(self._cluster.notes), key, f"{hold_s:.1f}"]
        if takes_memory:
            task.append(str(self._cluster.gpu_process))
        words = ("run", *options, "--note", self._note(key), "--", *task)
        self._command(key, user, node, words, wait_s + hold_s)

    def reserve(self, user: str, node: str, options: tuple[str, ...], wait_s: float,
                duration_s: int, hold_s: float) -> None:  # fmt: skip
        """`canhazgpu reserve`, some time, and `canhazgpu release`, as in a user's shell."""
        key = f"{RESERVE}:{next(self._numbers)}"
        asked = now()
        words = ("reserve", *options, "--short", "--note", self._note(key))
        output = self._command(key, user, node, words, wait_s, holds_s=duration_s).strip()
        if not output:
            return
        began = now()
        self._ended.wait(hold_s)
        ids = tuple(output.split(","))
        ends = held_until(user, node, ids, asked, min(now(), asked + duration_s), self._releases)
        # It may have ended before its command, which a fault had stopped.
        if ends > began:
            self.reservations.append(Holder(RESERVE, key, key, node, ids, began, ends))
        release = Release(user, node, frozenset(ids), now())
        self._releases.append(release)
        # It ends by itself where this command fails, or another one of the user's has released it.
        self._command(f"release of {key}", user, node, ("release", "--gpu-ids", output), 0.0)
        # What was killed may still be under way in the agent.
        release.until = now() + OVERTIME_S

    def _note(self, key: str) -> str:
        return NOTE + key.partition(":")[2]

    def _command(self, key: str, user: str, node: str, words: tuple[str, ...], limit_s: float,
                 holds_s: float | None = None) -> str:  # fmt: skip
        """Run a command of canhazgpu to its end and record it; return what it printed."""
        began = now()
        with self._lock:
            if self._ended.is_set():
                return ""
            process = popen_as(
                user,
                [str(self._cluster.program), *words],
                env=self._cluster.person_environ(node),
                cwd=Path("/"),
            )
            self._live[process.pid] = process
        ended: float | None = None
        try:
            out, errors = process.communicate(timeout=limit_s + OVERTIME_S)
            ended = now()
        except subprocess.TimeoutExpired:
            process.kill()
            out, errors = process.communicate()
        with self._lock:
            del self._live[process.pid]
        has_traceback = TRACEBACK in errors
        until = None if holds_s is None else now() + holds_s
        request = Request(
            key.partition(":")[0], key, began, ended, process.returncode, has_traceback, until
        )
        self.requests.append(request)
        self.statuses[f"{words[0]} {process.returncode}"] += 1
        if process.returncode not in (0, 75) or has_traceback:
            (self._logs / f"{key}.{os.getpid()}".replace(":", "-")).write_text(errors)
        return out if process.returncode == 0 else ""
