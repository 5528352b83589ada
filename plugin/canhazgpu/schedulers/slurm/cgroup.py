"""Pure: find a process's Slurm job from its control group.

Slurm puts every process of a job into a group that only root can make. With cgroup v1 the group is
below the root of a hierarchy, with v2 below ``system.slice``. slurm.conf's ProctrackType or
TaskPlugin must be a cgroup one. The path is matched from its beginning: a group in a user's own
``user.slice`` never matches. A user whom root allows to make groups elsewhere, or to choose the
groups of a container, can pretend to be a job.
"""

from __future__ import annotations

import re

_V1 = re.compile(r"/slurm(?:_[^/]+)?/uid_[0-9]+/job_([0-9]+)(?:/.*)?")
_V2 = re.compile(r"/system\.slice/(?:[^/]+_)?slurmstepd\.scope/job_([0-9]+)(?:/.*)?")
# Not the hierarchy name=systemd: parts of it belong to users.
_V1_CONTROLLERS = frozenset({"freezer", "devices", "memory", "cpuset", "cpuacct", "cpu"})


def job_of_cgroup(text: str) -> str | None:
    """Return the job in the text of /proc/PID/cgroup, such as ``slurm:123``; None for none.

    Also None if hierarchies name different jobs: a process is in one job at most.
    """
    lines = (line.split(":", 2) for line in text.split("\n"))
    found = {job for line in lines if len(line) == 3 if (job := _job(line[0], line[1], line[2]))}
    return f"slurm:{found.pop()}" if len(found) == 1 else None


def _job(hierarchy: str, controllers: str, path: str) -> str | None:
    if hierarchy == "0" and not controllers:
        match = _V2.fullmatch(path)
    elif _V1_CONTROLLERS & set(controllers.split(",")):
        match = _V1.fullmatch(path)
    else:
        return None
    return match[1] if match else None
