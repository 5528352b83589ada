"""Which job a process is in by /proc/PID/cgroup, and that nobody can pretend to be in one."""

from __future__ import annotations

import pytest

from canhazgpu.schedulers.slurm.cgroup import job_of_cgroup

V1 = """12:pids:/system.slice/slurmd.service
11:memory:/slurm/uid_1000/job_123/step_batch
10:cpu,cpuacct:/slurm/uid_1000/job_123/step_batch/task_0
7:freezer:/slurm/uid_1000/job_123/step_batch
5:devices:/slurm/uid_1000/job_123
1:name=systemd:/system.slice/slurmd.service
0::/system.slice/slurmd.service
"""


@pytest.mark.parametrize(
    "text",
    [
        V1,
        V1.replace("/slurm/", "/slurm_n1/"),
        "7:freezer:/slurm/uid_0/job_123/step_extern\n",
        "0::/system.slice/slurmstepd.scope/job_123/step_0/user/task_0\n",
        "0::/system.slice/slurmstepd.scope/job_123/step_batch/user/task_special\n",
        "0::/system.slice/n1_slurmstepd.scope/job_123/step_extern/user\n",
        "0::/system.slice/slurmstepd.scope/job_123\n",
        "7:freezer:/slurm/uid_0/job_123/a:b/job_9 (deleted)\n",
    ],
)
def test_processes_of_a_job(text: str) -> None:
    assert job_of_cgroup(text) == "slurm:123"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0::/\n",
        "no such line\n",
        "7:freezer\n",
        "0::/system.slice/slurmd.service\n",
        "0::/system.slice/slurmstepd.scope/system\n",
        # a user's own groups
        "0::/user.slice/user-1000.slice/user@1000.service/slurmstepd.scope/job_123/step_0\n",
        "0::/user.slice/user-1000.slice/user@1000.service/system.slice/slurmstepd.scope/job_123\n",
        "7:freezer:/user/ann/slurm/uid_1000/job_123/step_0\n",
        "1:name=systemd:/slurm/uid_1000/job_123/step_0\n",
        "1:name=mine:/system.slice/slurmstepd.scope/job_123\n",
        "1:name=freezer:/slurm/uid_1000/job_123\n",
        # not the grammar of the hierarchy
        "0::/slurm/uid_1000/job_123/step_0\n",
        "7:freezer:/system.slice/slurmstepd.scope/job_123/step_0\n",
        "7:freezer:/slurmx/uid_1000/job_123\n",
        "7:freezer:/slurm/uid_ann/job_123\n",
        "7:freezer:/slurm/job_123\n",
        "7:freezer:/slurm/uid_1000/job_12x\n",
        "7:freezer:/slurm/uid_1000/job_\n",
        "7:freezer:/slurm/uid_1000/xjob_123\n",
        "0::/../system.slice/slurmstepd.scope/job_123\n",
        "0::/system.slice/evil.service/slurmstepd.scope/job_123\n",
        "0::/system.slice/slurmstepd.scope.d/job_123\n",
        # hierarchies that do not agree
        V1 + "3:cpuset:/slurm/uid_1000/job_124\n",
    ],
)
def test_processes_of_none(text: str) -> None:
    assert job_of_cgroup(text) is None


def test_digits_are_digits() -> None:
    assert job_of_cgroup("7:freezer:/slurm/uid_1/job_\u0663\n") is None
