"""Which of Slurm's jobs a process runs in, by its control group; pure.

Slurm puts every process of a job into a group that only root can make: below the root of a
hierarchy with cgroup v1, below ``system.slice`` with v2 (slurm.conf's ProctrackType or TaskPlugin
must be a cgroup one). The path is therefore read from its beginning: what users may make groups
in, their own ``user.slice``, never matches. Whoever else root lets make groups in those places, or
lets into containers whose groups they choose, can pretend to be a job.
"""

from __future__ import annotations

import re

_V1 = re.compile(r"/slurm(?:_[^/]+)?/uid_[0-9]+/job_([0-9]+)(?:/.*)?")
_V2 = re.compile(r"/system\.slice/(?:[^/]+_)?slurmstepd\.scope/job_([0-9]+)(?:/.*)?")
# Not the hierarchy name=systemd, parts of which belong to users.
_V1_CONTROLLERS = frozenset({"freezer", "devices", "memory", "cpuset", "cpuacct", "cpu"})


def job_of_cgroup(text: str) -> str | None:
    """Return the job in the text of /proc/PID/cgroup, ``slurm:123``, None for none.

    None too where hierarchies name different jobs: no job's process is in two.
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
