"""Which of slurmd's job groups a process is in, by the text of its /proc/PID/cgroup; pure.

Only groups below those that slurmd itself uses count (see `slurmd_groups`): only root can make
groups there. A path that merely looks like Slurm's, in a subtree that belongs to a user, names no
job. Beside slurmd's groups are those of other slurmds on the host, of other nodes or clusters.

Paths below slurmd's groups (cgroup_v1.c, cgroup_v2.c; seen on 22.05, 24.11 and 26.05):

- cgroup v1: ``uid_1000/job_123/step_0``
- cgroup v2: ``job_123/step_0/user/task_0``
- cgroup v2 from 26.05 on: ``s5K1KKYAYG5D00/step_0/user/task_0``, the job's SLUID, unless
  ``CgroupJobIdPaths=yes``
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field, replace

from canhazgpu.frozen_dataclass import dataclass

_V1_JOB = re.compile(r"/uid_[0-9]+/job_(?P<id>[0-9]+)(?:/.*)?")
_V2_JOB = re.compile(r"/(?:job_(?P<id>[0-9]+)|(?P<sluid>s[0-9A-Z]{8,24}))(?:/.*)?")
_V1_NODE = re.compile(r"/slurm_([^/]+)(/.*)")
_V2_NODE = re.compile(r"/([^/]+)_slurmstepd\.scope(/.*)")


@dataclass(frozen=True, slots=True)
class SlurmdGroups:
    """The groups below which slurmd makes those of its jobs, as /proc/PID/cgroup names them.

    `v1` has them by controller. `v2` are the scopes of slurmstepd.
    """

    v1: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    v2: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class JobGroup:
    """A job's own group: `job_id`, or `sluid` where its path has that instead.

    `path` is the group's path, for one with an SLUID. `node` is the name of the node where that is
    another one on this host, else empty.
    """

    job_id: str = ""
    sluid: str = ""
    path: str = field(default="", compare=False)
    node: str = ""


def find_job_group(text: str, groups: SlurmdGroups) -> JobGroup | None:
    """Return the job group in the text of /proc/PID/cgroup, None for none.

    Also None if hierarchies name different jobs: a process is in one job at most.
    """
    lines = (line.split(":", 2) for line in text.split("\n"))
    found = {
        group for line in lines if len(line) == 3 for group in _job_groups(*line, groups=groups)
    }
    return found.pop() if len(found) == 1 else None


def _job_groups(
    hierarchy: str, controllers: str, path: str, *, groups: SlurmdGroups
) -> Iterator[JobGroup]:
    if hierarchy == "0" and not controllers:
        yield from _groups_below(groups.v2, _V2_JOB, _V2_NODE, path)
        return
    for controller in controllers.split(","):
        yield from _groups_below(groups.v1.get(controller, ()), _V1_JOB, _V1_NODE, path)


def _groups_below(
    own: Sequence[str], job: re.Pattern[str], of_node: re.Pattern[str], path: str
) -> Iterator[JobGroup]:
    """Yield the job's group below slurmd's own groups, else that below another slurmd's."""
    for group in own:
        if match := _match_below(group, job, path):
            yield _job_group(match, group)
            return
    for parent in dict.fromkeys(group.rpartition("/")[0] for group in own):
        found = _match_below(parent, of_node, path)
        if found and (match := job.fullmatch(found[2])):
            yield replace(_job_group(match), node=found[1])
            return


def _job_group(match: re.Match[str], slurmds_group: str = "") -> JobGroup:
    sluid = match.groupdict().get("sluid") or ""
    return JobGroup(match["id"] or "", sluid, f"{slurmds_group}/{sluid}" if sluid else "")


def _match_below(group: str, pattern: re.Pattern[str], path: str) -> re.Match[str] | None:
    return pattern.fullmatch(path.removeprefix(group)) if path.startswith(f"{group}/") else None
