"""Run the rendered task prolog as slurmstepd would: an environment and a record in, lines out."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from hosts.no_agent import NO_AGENT

from canhazgpu.gpu.assigned import AssignedGpu
from canhazgpu.ledger.local.jobs.task_record import export_words, task_record_text
from canhazgpu.templates.render import render

SHELLS = {"dash": ["dash"], "busybox": ["busybox", "sh"], "bash": ["bash", "--posix"]}
"""What may be a node's /bin/sh."""

NOBODY = 65534


def shell_command(name: str) -> list[str]:
    """Return the command of that shell; skip where it is missing."""
    program, *options = SHELLS[name]
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"there is no {program} on this machine")
    return [found, *options]


@dataclass(frozen=True)
class Told:
    """What the task prolog said, and how it ended."""

    lines: list[str]
    status: int
    errors: str


@dataclass(frozen=True)
class TaskProlog:
    """The script, with the node's records beside it."""

    directory: Path
    shell: Sequence[str]
    node: str = "n1"

    @classmethod
    def at(cls, directory: Path, shell: Sequence[str]) -> TaskProlog:
        """Render the script; its state directory has a blank and a quote in its name."""
        made = cls(directory, shell)
        made.script.write_text(
            render(
                "task_prolog.sh",
                {"state_dir": f"{made.state}/%n", **NO_AGENT},
            )
        )
        made.record(7).parent.mkdir(parents=True)
        return made

    @property
    def script(self) -> Path:
        return self.directory / "task_prolog.sh"

    @property
    def state(self) -> Path:
        return self.directory / "it's the state"

    def record(self, job: int) -> Path:
        return self.state / self.node / "jobs" / f"{job}.env"

    def run_as_job(
        self,
        visible: str | None,
        *,
        user: int | None = None,
        group: Path | None = None,
        **environ: str,
    ) -> Told:
        """Run it for job 7 on n1, with nothing in the environment but what slurmstepd sets.

        `group` is the control group in which it runs.
        """
        given = {"SLURM_JOB_ID": "7", "SLURMD_NODENAME": self.node, **environ}
        if visible is not None:
            given["CUDA_VISIBLE_DEVICES"] = visible
        return self.run(given, user, group)

    def run(
        self, environ: Mapping[str, str], user: int | None = None, group: Path | None = None
    ) -> Told:
        join = ["/bin/sh", "-c", 'echo 0 >"$1/cgroup.procs"; shift; exec "$@"', "sh", str(group)]
        done = subprocess.run(
            [*(join if group else ()), *self.shell, str(self.script)],
            env=dict(environ),
            user=user,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return Told(done.stdout.splitlines(), done.returncode, done.stderr)


def record_text(
    gpus: Sequence[tuple[int, str, int, str]],
    *,
    constrained: bool = False,
    export: str | Sequence[str] = "uuid",
) -> str:
    """Return a record as the prolog writes it."""
    assigned = [AssignedGpu(*gpu, cuda_index=gpu[2]) for gpu in gpus]
    words = export_words(export) if isinstance(export, str) else export
    return task_record_text(assigned, words, constrained=constrained)


def told_gpus(*uuids: str, visible: str | None = None, also: Sequence[str] = ()) -> list[str]:
    """Return the lines that name these GPUs; `visible` is CUDA_VISIBLE_DEVICES, if not UUIDs."""
    names = ",".join(uuids)
    lines = [f"export CUDA_VISIBLE_DEVICES={visible or names}"]
    return lines + [f"export {name}={names}" for name in ("CANHAZGPU_GPUS", *also)]
