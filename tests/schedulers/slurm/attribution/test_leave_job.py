"""A hook that Slurm runs inside its job leaves the job's control groups."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from canhazgpu.schedulers.slurm.attribution.leave_job import leave_job

SCOPE = "/system.slice/slurmstepd.scope"
HIERARCHIES = Path("/sys/fs/cgroup")
CONTROLLERS = ("freezer", "devices")

LEAVE = """
import sys
from pathlib import Path
from canhazgpu.schedulers.slurm.attribution.leave_job import leave_job
print(leave_job(Path(sys.argv[1]), "n1"))
print(Path("/proc/self/cgroup").read_text())
"""


@pytest.fixture
def job_groups(tmp_path: Path) -> Iterator[list[Path]]:
    """Groups of a job's extern step below a mount point of the test's own."""
    if os.geteuid() != 0 or not all((HIERARCHIES / name).is_dir() for name in CONTROLLERS):
        pytest.skip("there is no cgroup v1 here that this user could change")
    (tmp_path / "cgroup.conf").write_text(f"CgroupMountpoint={tmp_path}/cgroup\n")
    (tmp_path / "cgroup").mkdir()
    made, groups = [], []
    for name in CONTROLLERS:
        top = HIERARCHIES / name / f"leave-job-{os.getpid()}"
        group = top / "slurm_n1/uid_1/job_7/step_extern"
        group.mkdir(parents=True)
        (tmp_path / "cgroup" / name).symlink_to(top)
        groups.append(group)
        made += [group, *(one for one in group.parents if one.is_relative_to(top))]
    yield groups
    for path in made:
        path.rmdir()


@pytest.mark.may_skip
def test_a_process_in_a_job_is_in_none_afterwards(tmp_path: Path, job_groups: list[Path]) -> None:
    enter = 'for one; do shift; [ "$one" = -- ] && break; echo 0 >"$one/cgroup.procs"; done; "$@"'
    python = [sys.executable, "-I", "-c", LEAVE, str(tmp_path / "slurm.conf")]
    command = ["/bin/sh", "-c", enter, "sh", *map(str, job_groups), "--", *python]

    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)

    left, *groups = done.stdout.split("\n")
    assert left == "True"
    assert "job_7" not in "".join(groups)
    # and it is where slurmd's groups are, not elsewhere
    assert any(one.endswith(f"freezer:/leave-job-{os.getpid()}") for one in groups)


def v2_node(directory: Path, path: str) -> Path:
    """Make a /proc of a process in this group of cgroup v2, which is mounted at ``cgroup``."""
    proc, waiting = directory / "proc", directory / f"cgroup{SCOPE}/system"
    for one in (proc / "self", proc / "1", waiting):
        one.mkdir(parents=True)
    (proc / "self/cgroup").write_text(f"0::{path}\n")
    (proc / "1/cgroup").write_text("0::/init.scope\n")
    mount = f"30 23 0:26 / {directory}/cgroup rw - cgroup2 cgroup2 rw\n"
    (proc / "self/mountinfo").write_text(mount)
    (directory / "cgroup.conf").write_text(f"CgroupMountpoint={directory}/cgroup\n")
    return proc


@pytest.mark.parametrize("job", ["job_7", "s5K1KKYAYG5D00"])
def test_with_cgroup_v2_it_goes_where_slurmstepds_begin(tmp_path: Path, job: str) -> None:
    proc = v2_node(tmp_path, f"{SCOPE}/{job}/step_extern/slurm")
    # The file that says where it is does not change here: it counts as still in the job.
    assert not leave_job(tmp_path / "slurm.conf", "n1", proc)
    written = tmp_path / f"cgroup{SCOPE}/system/cgroup.procs"
    assert written.read_text() == str(os.getpid())


@pytest.mark.parametrize("path", ["/system.slice/slurmd.service", "/user.slice/job_7/step_0", "/"])
def test_a_process_in_no_job_stays_where_it_is(tmp_path: Path, path: str) -> None:
    proc = v2_node(tmp_path, path)
    assert leave_job(tmp_path / "slurm.conf", "n1", proc)
    assert not (tmp_path / f"cgroup{SCOPE}/system/cgroup.procs").exists()
