"""Tell which of Slurm's jobs a process is in.

What is needed is read for the first process that is looked up: most scans find none.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from canhazgpu.gpu.process_job import identified_job, job_of_another_node, unidentified_job
from canhazgpu.ledger.local.jobs.job_records import JobRecords
from canhazgpu.schedulers.slurm import environment as names
from canhazgpu.schedulers.slurm.attribution.groups_record import recorded_groups
from canhazgpu.schedulers.slurm.attribution.job_group import JobGroup, SlurmdGroups, find_job_group
from canhazgpu.schedulers.slurm.attribution.slurmd_groups import (
    directory_of,
    find_slurmd_groups,
    parse_cgroup_mounts,
)
from canhazgpu.schedulers.slurm.attribution.slurmstepd import job_id_of_slurmstepd


class JobAttribution:
    """`JobOfCgroup` for the Slurm of one node.

    A job whose id cannot be found is `unidentified_job`, never no job.
    """

    def __init__(
        self,
        find_groups: Callable[[], SlurmdGroups],
        records: JobRecords,
        proc: Path = Path("/proc"),
    ) -> None:
        self._find_groups = find_groups
        self._records = records
        self._proc = proc
        self._groups: SlurmdGroups | None = None
        self._jobs: dict[JobGroup, str] = {}
        self._job_by_text: dict[str, str | None] = {"": None}

    def __call__(self, cgroup: str) -> str | None:
        """See `JobOfCgroup`."""
        if cgroup not in self._job_by_text:
            self._job_by_text[cgroup] = self._job_of(cgroup)
        return self._job_by_text[cgroup]

    def _job_of(self, cgroup: str) -> str | None:
        if self._groups is None:
            self._groups = self._find_groups()
        group = find_job_group(cgroup, self._groups)
        if group is None:
            return None
        if group not in self._jobs:
            self._jobs[group] = self._identify(group)
        return self._jobs[group]

    def _identify(self, group: JobGroup) -> str:
        if group.node:
            name = group.job_id or group.sluid
            return job_of_another_node(names.SCHEDULER_TYPE, name, group.node)
        job_id = (
            group.job_id
            or self._records.job_ids_by_run().get(group.sluid)
            or self._job_id_of_slurmstepd(group)
        )
        if job_id:
            return identified_job(names.SCHEDULER_TYPE, job_id)
        return unidentified_job(names.SCHEDULER_TYPE, group.sluid)

    def _job_id_of_slurmstepd(self, group: JobGroup) -> str:
        try:
            mounts = parse_cgroup_mounts((self._proc / "self/mountinfo").read_text("utf-8"))
        except (OSError, ValueError):
            return ""
        directory = directory_of(group.path, mounts)
        return "" if directory is None else job_id_of_slurmstepd(directory, self._proc)


def hook_attribution(conf: Path, node: str, state_dir: Path) -> JobAttribution:
    """Return the attribution of a hook, which runs where slurmd does."""
    return JobAttribution(lambda: find_slurmd_groups(conf, node), JobRecords(state_dir))


def command_attribution(conf: Path, node: str, state_dir: Path) -> JobAttribution:
    """Return the attribution of a command: by the hooks' record, else as a hook would."""
    return JobAttribution(
        lambda: recorded_groups(state_dir) or find_slurmd_groups(conf, node), JobRecords(state_dir)
    )
