"""Run Slurm's commands with a time limit. A hook runs them only on a conflict."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from canhazgpu.errors import SchedulerError
from canhazgpu.schedulers.slurm.control.shortened_comment import shortened_comment

MAX_OUTPUT = 300
"""Characters of a command's own message in an error."""
DEFAULT_BIN_DIRS = ("/usr/bin", "/usr/local/bin", "/opt/slurm/bin", "/usr/local/slurm/bin")


class SlurmCommands:
    """Runs Slurm's commands. Hooks have no PATH, so the commands are found by directory.

    `timeout_s` limits the total time of all commands of one object: a controller that hangs must
    not use up slurmd's own limit, after which Slurm drains the node.
    """

    def __init__(self, bin_dir: str, timeout_s: float, environ: Mapping[str, str]) -> None:
        self._dirs = (bin_dir,) if bin_dir else DEFAULT_BIN_DIRS
        self._timeout_s = timeout_s
        self._left_s = timeout_s
        self._environ = dict(environ)

    @property
    def left_s(self) -> float:
        """How much of the total time is left, in seconds."""
        return self._left_s

    def run(
        self,
        program: str,
        *arguments: str,
        share: float = 1.0,
        variables: Mapping[str, str] | None = None,
    ) -> str:
        """Return the command's output; raises `SchedulerError` with the command's own message.

        `share` is the share of the total time that this command may take at most. An optional
        query so leaves time for the commands that must run. `variables` are added to the
        command's environment.
        """
        limit_s = min(self._left_s, self._timeout_s * share)
        began = time.monotonic()
        try:
            return self._run(program, arguments, limit_s, variables or {})
        except subprocess.TimeoutExpired as exc:
            raise SchedulerError(f"{program} gave no answer in {limit_s:.2g} s") from exc
        except OSError as exc:
            raise SchedulerError(f"cannot run {program}: {exc.strerror}") from exc
        finally:
            self._left_s = max(self._left_s - (time.monotonic() - began), 0.0)

    def _run(
        self,
        program: str,
        arguments: Sequence[str],
        limit_s: float,
        variables: Mapping[str, str],
    ) -> str:
        done = subprocess.run(
            [self._find(program), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=limit_s,
            env={**self._environ, **variables},
            check=False,
        )
        if done.returncode != 0:
            output = " ".join((done.stderr or done.stdout).split())
            what = " ".join((program, *arguments[:1]))
            raise SchedulerError(f"{what} failed: {shortened_comment(output, MAX_OUTPUT)}")
        return done.stdout

    def _find(self, program: str) -> str:
        for directory in self._dirs:
            path = Path(directory) / program
            if os.access(path, os.X_OK):
                return str(path)
        raise SchedulerError(
            f"{program} is not in {', '.join(self._dirs)}: set slurm.bin_dir to its directory",
            next_step="",
        )
