"""Slurm's commands, run with a deadline; only ever on a conflict, never on a job's normal path."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from canhazgpu.errors import SchedulerError

USUAL_DIRS = ("/usr/bin", "/usr/local/bin", "/opt/slurm/bin", "/usr/local/slurm/bin")


class SlurmCommands:
    """Runs Slurm's commands; slurmd's hooks have no PATH, so they are looked for by place.

    `timeout_s` bounds all commands of one object together, from the first on: a controller that
    hangs must not add up to slurmd's own limit, which would drain the node.
    """

    def __init__(self, bin_dir: str, timeout_s: float, environ: Mapping[str, str]) -> None:
        self._dirs = (bin_dir,) if bin_dir else USUAL_DIRS
        self._timeout_s = timeout_s
        self._deadline: float | None = None
        self._environ = dict(environ)

    def run(self, program: str, *arguments: str) -> str:
        """Return what the command printed; raises `SchedulerError` with its own words."""
        try:
            done = subprocess.run(
                [self._find(program), *arguments],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=self._remaining_s(),
                env=self._environ,
                check=False,
            )
        except subprocess.TimeoutExpired as exc:
            raise SchedulerError(f"{program} gave no answer in {self._timeout_s:g} s") from exc
        except OSError as exc:
            raise SchedulerError(f"cannot run {program}: {exc.strerror}") from exc
        if done.returncode != 0:
            said = " ".join((done.stderr or done.stdout).split())
            what = " ".join((program, *arguments[:1]))
            raise SchedulerError(f"{what} failed: {said[:300]}")
        return done.stdout

    def _remaining_s(self) -> float:
        now = time.monotonic()
        if self._deadline is None:
            self._deadline = now + self._timeout_s
        return max(self._deadline - now, 0.0)

    def _find(self, program: str) -> str:
        for directory in self._dirs:
            path = Path(directory) / program
            if os.access(path, os.X_OK):
                return str(path)
        raise SchedulerError(
            f"{program} is not in {', '.join(self._dirs)}: set slurm.bin_dir to its directory"
        )
