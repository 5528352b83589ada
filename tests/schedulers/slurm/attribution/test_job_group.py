"""Which job a process is in by /proc/PID/cgroup, and that nobody can pretend to be in one."""

from __future__ import annotations

import pytest

from canhazgpu.schedulers.slurm.attribution.job_group import (
    JobGroup,
    SlurmdGroups,
    find_job_group,
)

SCOPE = "/system.slice/slurmstepd.scope"
GROUPS = SlurmdGroups(
    {name: ("/slurm", "/slurm_n1") for name in ("freezer", "devices", "memory", "cpu", "cpuset")},
    (SCOPE, "/system.slice/n1_slurmstepd.scope"),
)

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
    found = find_job_group(text, GROUPS)
    assert found is not None
    assert (found.job_id, found.sluid) == ("123", "")


@pytest.mark.parametrize(
    ("path", "group"),
    [
        # as on 26.05, by its SLUID
        (
            f"{SCOPE}/s5K1KKYAYG5D00/step_0/user/task_0",
            JobGroup("", "s5K1KKYAYG5D00", f"{SCOPE}/s5K1KKYAYG5D00"),
        ),
        (
            f"{SCOPE}/sEKNKTV3WPV500/step_batch/slurm",
            JobGroup("", "sEKNKTV3WPV500", f"{SCOPE}/sEKNKTV3WPV500"),
        ),
        # and with CgroupJobIdPaths=yes
        (f"{SCOPE}/job_12/step_0/user/task_0", JobGroup("12")),
        # what a task itself makes below its group says nothing
        (f"{SCOPE}/job_12/step_0/user/task_0{SCOPE}/job_13", JobGroup("12", "")),
    ],
)
def test_the_group_of_a_job(path: str, group: JobGroup) -> None:
    found = find_job_group(f"0::{path}\n", GROUPS)
    assert found == group
    assert found is not None
    assert found.path == group.path


@pytest.mark.parametrize(
    ("text", "group"),
    [
        ("7:freezer:/slurm_n2/uid_1000/job_123/step_0\n", JobGroup("123", node="n2")),
        ("0::/system.slice/n2_slurmstepd.scope/job_123/step_0\n", JobGroup("123", node="n2")),
        (
            "0::/system.slice/n2_slurmstepd.scope/s5K1KKYAYG5D00/step_0/user/task_0\n",
            JobGroup(sluid="s5K1KKYAYG5D00", node="n2"),
        ),
    ],
)
def test_a_job_of_another_node_on_this_host(text: str, group: JobGroup) -> None:
    assert find_job_group(text, GROUPS) == group


def test_groups_below_those_of_a_container() -> None:
    pod = "/kubepods.slice/kubepods-pod1.slice"
    groups = SlurmdGroups({"freezer": (f"{pod}/slurm",)}, (f"{pod}{SCOPE}",))

    def job(text: str) -> str:
        found = find_job_group(text, groups)
        return found.job_id if found else ""

    assert job(f"0::{pod}{SCOPE}/job_7/step_0\n") == "7"
    assert job(f"7:freezer:{pod}/slurm/uid_1/job_7/step_0\n") == "7"
    # and not those of another one, nor the host's
    assert job(f"0::{pod}x{SCOPE}/job_7/step_0\n") == ""
    assert job(f"0::{SCOPE}/job_7/step_0\n") == ""
    assert job("7:freezer:/slurm/uid_1/job_7/step_0\n") == ""


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
        # of another node, which others than root have made
        "7:freezer:/user/ann/slurm_n2/uid_1000/job_123\n",
        "7:freezer:/slurm/uid_1000/slurm_n2/uid_1000/job_123\n",
        "0::/user.slice/user-1000.slice/user@1000.service/n2_slurmstepd.scope/job_123\n",
        "0::/system.slice/my.service/n2_slurmstepd.scope/job_123\n",
        "0::/system.slice/_slurmstepd.scope/job_123\n",
        "0::/system.slice/n2_slurmstepd.scope/system\n",
        "7:freezer:/slurm_n2/job_123\n",
        # a delegated subtree that looks like Slurm's with SLUIDs
        "0::/user.slice/user-1000.slice/user@1000.service/slurmstepd.scope/s5K1KKYAYG5D00/step_0\n",
        "0::/system.slice/my.service/system.slice/slurmstepd.scope/s5K1KKYAYG5D00/step_0\n",
        "0::/custom.slice/slurmstepd.scope/s5K1KKYAYG5D00/step_0\n",
        "0::/system.slice/slurmstepd.scope/s5k1kkyayg5d00/step_0\n",
        # hierarchies that do not agree
        V1 + "3:cpuset:/slurm/uid_1000/job_124\n",
    ],
)
def test_processes_of_none(text: str) -> None:
    assert find_job_group(text, GROUPS) is None


def test_digits_are_digits() -> None:
    assert find_job_group("7:freezer:/slurm/uid_1/job_\u0663\n", GROUPS) is None
