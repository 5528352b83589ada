"""What must not come of garbage, whoever has read it: judged in one place."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from click.testing import CliRunner
from hypothesis import HealthCheck, settings

from canhazgpu.cli.app import App
from canhazgpu.cli.main import cli

NEVER_SAID = ("Traceback (most recent call last)", "internal error", "please report this")
REFUSES = re.compile(r"canhazgpu: SLURM\w*=.* is not a ")
"""A variable of a hook that makes no sense."""
LOOKS: tuple[tuple[str, ...], ...] = (
    ("status",),
    ("status", "--json"),
    ("status", "--all"),
    ("queue",),
    ("queue", "--json"),
    ("events", "--since", "365d"),
    ("events", "--since", "365d", "--json"),
    ("explain", "12"),
    ("explain", "12", "--json"),
    ("report",),
    ("report", "--json"),
    ("validate",),
    ("admin", "nodes"),
    ("admin", "nodes", "--json"),
    ("config", "show"),
)
CHANGES: tuple[tuple[str, ...], ...] = (
    ("reserve", "--nonblock", "--duration", "1h"),
    ("extend", "--duration", "1h"),
    ("release",),
    ("admin", "quarantine", "1", "--reason", "x"),
    ("admin", "unquarantine", "1"),
    ("admin", "release", "--user", "carol", "--reason", "x"),
    ("admin", "forget", "n2"),
)


def examples(default: int) -> int:
    """How many to try: GARBAGE_EXAMPLES, where that is set."""
    return int(os.environ.get("GARBAGE_EXAMPLES", default))


fuzzed = settings(
    max_examples=examples(6),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
"""For an example that runs several commands, on a node that a fixture makes once."""


@dataclass
class Judged:
    """How much was tried, and what broke."""

    name: str
    tried: int = 0
    runs: int = 0
    broke: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.name}: {self.tried} tried, {self.runs} runs, {len(self.broke)} broke"

    def command(self, app: App, arguments: Sequence[str]) -> str:
        """Carry out a command in this process; returns what it said."""
        self.runs += 1
        done = CliRunner().invoke(cli, list(arguments), obj=app)
        what = " ".join(arguments)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            where = done.exc_info[2] if done.exc_info else None
            while where and where.tb_next:
                where = where.tb_next
            line = f"{where.tb_frame.f_code.co_filename}:{where.tb_lineno}" if where else ""
            self.broke.append(f"{what}: {done.exception!r:.200} at {line}")
        self._judge_text(what, done.output)
        return done.output

    def hook(self, what: str, done: subprocess.CompletedProcess[str], log: str) -> None:
        """Judge a hook that has run as a process.

        2 says that a variable makes no sense; the hook's script ends with 0 for it.
        """
        self.runs += 1
        refused = done.returncode == 2 and REFUSES.search(done.stderr) is not None
        if done.returncode != 0 and not refused:
            self.broke.append(f"{what}: status {done.returncode}: {done.stderr[-500:]}")
        said = f"{done.stdout}{done.stderr}{log}".splitlines()
        self._judge_text(what, "\n".join(one for one in said if not REFUSES.search(one)))

    def program(self, what: str, done: subprocess.CompletedProcess[str]) -> None:
        """Judge a command that has run as a process: it may fail, but not by a signal."""
        self.runs += 1
        if done.returncode < 0:
            self.broke.append(f"{what}: status {done.returncode}: {done.stderr[-500:]}")
        self._judge_text(what, done.stdout + done.stderr)

    def _judge_text(self, what: str, said: str) -> None:
        for one in NEVER_SAID:
            if one in said:
                at = said.index(one)
                self.broke.append(f"{what}: {said[max(at - 200, 0) : at + 300]}")

    def grants(self, what: str, given: Iterable[str], taken: Iterable[str]) -> None:
        """Judge a grant: none of the GPUs given was anybody's, or could not be judged."""
        if wrong := set(given) & set(taken):
            self.broke.append(f"{what}: granted {sorted(wrong)}")

    def assert_none_broke(self) -> None:
        assert self.broke == [], "\n".join([str(self), *self.broke[:20]])
