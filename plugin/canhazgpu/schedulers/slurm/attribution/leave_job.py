"""Take a hook out of the control groups of the job that it runs for.

``PrologFlags=RunInJob`` (24.05) runs a job's hooks in its extern step. What a hook starts and
leaves behind there, such as the embedded store, keeps the job from ending, and the node is drained
(seen on 26.05). Where Slurm constrains devices, the hook would see no GPU but the job's.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from canhazgpu.schedulers.slurm.attribution.job_group import SlurmdGroups, find_job_group
from canhazgpu.schedulers.slurm.attribution.slurmd_groups import (
    cgroup_mount_point,
    directory_of,
    find_slurmd_groups,
    parse_cgroup_mounts,
)

_MAY_BE_IN_JOB = re.compile(r"/job_[0-9]|/step_")
WAITING_GROUP = "system"
"""The group of a scope in which slurmstepds begin, outside of any job (cgroup_v2.c)."""


def leave_job(conf: Path, node: str, proc: Path = Path("/proc")) -> bool:
    """Leave the job's groups, if this process is in any; returns False where it stays in one.

    `conf` is slurm.conf. Raises `ConfigError` for a ``cgroup.conf`` that cannot be read.
    """
    text = _own_groups(proc)
    if not _MAY_BE_IN_JOB.search(text):
        return True
    groups = find_slurmd_groups(conf, node, proc)
    mount_point = cgroup_mount_point(conf)
    for line in text.splitlines():
        if find_job_group(line, groups) is not None:
            for directory in _directories_outside(line, groups, mount_point, proc):
                _join(directory)
    return find_job_group(_own_groups(proc), groups) is None


def _directories_outside(
    line: str, groups: SlurmdGroups, mount_point: str, proc: Path
) -> Iterator[Path]:
    """Yield a directory outside of the job for the line's hierarchy."""
    hierarchy, controllers, path = line.split(":", 2)
    if hierarchy == "0" and not controllers:
        mounts = parse_cgroup_mounts((proc / "self/mountinfo").read_text("utf-8", "replace"))
        scopes = (scope for scope in groups.v2 if path.startswith(f"{scope}/"))
        found = (directory_of(f"{scope}/{WAITING_GROUP}", mounts) for scope in scopes)
        yield from (directory for directory in found if directory is not None)
        return
    yield from (Path(mount_point) / name for name in controllers.split(",") if groups.v1.get(name))


def _join(directory: Path) -> None:
    try:
        (directory / "cgroup.procs").write_text(str(os.getpid()))
    except OSError:
        return  # the caller looks where it is


def _own_groups(proc: Path) -> str:
    try:
        return (proc / "self/cgroup").read_text("utf-8", "replace")
    except OSError:
        return ""
