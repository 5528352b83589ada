"""Find the job of a job group whose path has an SLUID, by the slurmstepd of one of its steps.

slurmd puts the slurmstepd of a step into the group ``step_S/slurm`` of the job's own group, and
slurmstepd names its job in its title, ``slurmstepd: [123.batch]``. Only root can write either.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

_TITLE = re.compile(r"slurmstepd: \[([0-9]+)\.[^\]]+\]")
MAX_FILE_BYTES = 65536


def job_id_of_slurmstepd(job_group: Path, proc: Path = Path("/proc")) -> str:
    """Return the id of the job whose group is this directory, "" if no slurmstepd says it."""
    found = {
        match[1]
        for step in _steps(job_group)
        for pid in _pids(step / "slurm")
        if (match := _TITLE.match(_title(proc / pid)))
    }
    return found.pop() if len(found) == 1 else ""


def _steps(job_group: Path) -> Iterator[Path]:
    with contextlib.suppress(OSError):
        yield from sorted(job_group.glob("step_*"))


def _pids(group: Path) -> list[str]:
    with contextlib.suppress(OSError):
        return (group / "cgroup.procs").read_text("ascii", "replace").split()
    return []


def _title(process: Path) -> str:
    with contextlib.suppress(OSError), (process / "cmdline").open("rb") as stream:
        return stream.read(MAX_FILE_BYTES).decode("utf-8", "replace")
    return ""
