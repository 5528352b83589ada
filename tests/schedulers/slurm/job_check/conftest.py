"""A node with an agent of its own, on which job 12 of one user runs without a prolog."""

from __future__ import annotations

import importlib.util
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hosts.running_agent import RunningAgent
from servers.private_redis import PrivateRedis
from simulated_driver import install_driver

import fake_nvml
from canhazgpu.config.schema import StoreConfig
from canhazgpu.ledger.local.jobs.job_record import JobRecord
from canhazgpu.ledger.local.jobs.job_records import JobRecords
from canhazgpu.ledger.store.connect import Role
from canhazgpu.ledger.store.ledger import RedisLedger
from canhazgpu.schedulers.slurm.attribution.groups_record import record_groups
from canhazgpu.schedulers.slurm.attribution.job_group import SlurmdGroups

NODE, JOB = "n1", "12"
FREEZER = Path("/sys/fs/cgroup/freezer")
LIMITS = {"max_hooks": 8, "max_requests": 8, "max_requests_per_user": 3}
FACTS = "{job} {uid} {user} {state} {attempt} main 1 2 {comment}\n"
SHOWN = "JobId=12 JobName=train\n     Nodes=n1 CPU_IDs=0 Mem=0 GRES=gpu:2(IDX:1-2)\n"
SLURM = {
    "squeue": 'case $* in *--Format*) cat {files}/facts ;; *) echo "12 12 RUNNING" ;; esac',
    "scontrol": """case $1 in
    listpids) cat {files}/pids ;;
    show) cat {files}/shown ;;
    *) echo "$*" >>{files}/orders; [ "$1" != requeue ] || sed -i s/RUNNING/PENDING/ {files}/facts ;;
    esac""",
    "scancel": "sed -i s/RUNNING/COMPLETING/ {files}/facts",
    "sinfo": "echo 'n1 mixed'",
}


def client_path() -> str:
    """The program by which a task asks the agent."""
    found = importlib.util.find_spec("canhazgpu.agent.job_check_client")
    assert found is not None and found.origin is not None
    return found.origin


@dataclass(frozen=True, slots=True)
class JobNode:
    """`group` is the directory of a control group of job 12."""

    files: Path
    agent: RunningAgent
    state: fake_nvml.FakeState
    ledger: RedisLedger
    group: Path
    users: tuple[str, str]

    def job(self, **changes: Any) -> None:
        """Have slurmctld say this of job 12, which else runs and is the first user's."""
        user = changes.pop("user", self.users[0])
        facts = {
            "job": JOB,
            "uid": pwd.getpwnam(user).pw_uid,
            "user": user,
            "state": "RUNNING",
            "attempt": 0,
            "comment": "(null)",
        }
        (self.files / "facts").write_text(FACTS.format(**{**facts, **changes}))

    def listed_pids(self, *pids: int) -> None:
        """Have slurmd say that these processes are job 12's."""
        lines = "".join(f"{pid} {JOB} batch - -\n" for pid in pids)
        (self.files / "pids").write_text(f"PID JOBID STEPID LOCALID GLOBALID\n{lines}")

    def ask(self, user: str = "", group: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Ask as a task does, with the real client; the job's user, in the job's group."""
        found = pwd.getpwnam(user or self.users[0])
        join = ["/bin/sh", "-c", 'echo 0 >"$1/cgroup.procs" && shift && exec "$@"', "sh"]
        become = ["/usr/bin/setpriv", f"--reuid={found.pw_uid}", f"--regid={found.pw_gid}"]
        client = [sys.executable, "-I", "-S", client_path(), str(self.agent.people_socket)]
        return subprocess.run(
            [*join, str(group or self.group), *become, "--clear-groups", *client],
            env={},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def as_user(self, user: str, work: Callable[[], object], group: Path | None = None) -> str:
        """What this returns as JSON in a process of the user, in the job's group."""
        found = pwd.getpwnam(user)
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                (group or self.group).joinpath("cgroup.procs").write_text("0")
                become(found)
                os.write(write, json.dumps(work()).encode())
            except BaseException as exc:
                os.write(write, repr(exc).encode())
            finally:
                os._exit(0)
        os.close(write)
        with os.fdopen(read, "rb") as stream:
            said = stream.read().decode()
        os.waitpid(pid, 0)
        return said

    def record(self) -> JobRecord | None:
        return JobRecords(self.agent.state_dir).find(JOB)

    def holders(self) -> dict[str, str]:
        (view,) = self.ledger.read_nodes([NODE])
        return {gpu: one.claim.owner for gpu, one in view.reservations.items()}

    def uuid_of_position(self, position: int) -> str:
        return self.state.node(NODE).gpus[3 - position].uuid

    def assert_nothing_granted(self) -> None:
        self.agent.wait_until_idle()
        assert (self.holders(), self.record()) == ({}, None)

    def orders(self) -> list[str]:
        path = self.files / "orders"
        return path.read_text().splitlines() if path.exists() else []


def become(user: pwd.struct_passwd) -> None:
    os.setgroups([])
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)


@pytest.fixture
def job_group() -> Iterator[Path]:
    """A control group as slurmd makes them, below one that only this test uses."""
    if os.geteuid() != 0 or not FREEZER.is_dir():
        pytest.skip("a job's control group takes root, and cgroup v1")
    top = FREEZER / f"chg-job-check-{os.getpid()}"
    group = top / f"slurm_{NODE}" / "uid_1000" / f"job_{JOB}" / "step_0"
    group.mkdir(parents=True)
    yield group
    for directory, _, _ in os.walk(top, topdown=False):
        for pid in Path(directory, "cgroup.procs").read_text().split():
            os.kill(int(pid), signal.SIGKILL)
            FREEZER.joinpath("cgroup.procs").write_text(pid)
        os.rmdir(directory)  # noqa: PTH106 - of a control group


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that every user can enter: pytest's own are root's."""
    made = Path(tempfile.mkdtemp(prefix="chg-job-check-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture(params=["slurm", "canhazgpu"])
def job_node(
    request: pytest.FixtureRequest, place: Path, job_group: Path, people: tuple[str, str]
) -> Iterator[JobNode]:
    """The node, once with Slurm's choice of devices and once with ours."""
    library = install_driver(place / "driver")
    state = fake_nvml.FakeState(library.parent / "state")
    state.add_node(NODE, 4, minors=[3, 2, 1, 0])
    write_slurm(place, job_group)
    with PrivateRedis() as server:
        config: dict[str, dict[str, Any]] = {
            "store": {"url": server.url, "timeout_s": 5.0},
            "validation": {"nvml_library": str(library)},
            "slurm": {"assignment": request.param, "bin_dir": str(place / "bin")},
        }
        with RunningAgent(place / "agent", agent=LIMITS, **config) as agent:
            # As a hook has left it.
            record_groups(agent.state_dir, SlurmdGroups(), place / "slurm.conf")
            ledger = RedisLedger(StoreConfig(url=server.url, timeout_s=5.0), Role.WRITE)
            made = JobNode(place, agent, state, ledger, job_group, people)
            made.job()
            made.listed_pids()
            yield made
            agent.wait_until_idle()
            assert agent.status()["faults"] == []


def write_slurm(files: Path, job_group: Path) -> None:
    """Write Slurm's files, and commands that answer from the files beside them."""
    (files / "slurm.conf").write_text(f"SlurmdLogFile={files}/slurmd.log\nClusterName=c1\n")
    (files / "gres.conf").write_text("Name=gpu File=/dev/nvidia[0-3]\n")
    (files / "slurmd.log").write_text("")
    (files / "cgroup").mkdir()
    (files / "cgroup" / "freezer").symlink_to(job_group.parents[3])
    (files / "cgroup.conf").write_text(f"CgroupMountpoint={files}/cgroup\n")
    (files / "shown").write_text(SHOWN)
    (files / "bin").mkdir()
    for name, script in SLURM.items():
        path = files / "bin" / name
        path.write_text(f"#!/bin/sh\n{script.format(files=files)}\n")
        path.chmod(0o755)


def opened(path: Path) -> socket.socket:
    """A connection to a socket."""
    made = socket.socket(socket.AF_UNIX)
    made.settimeout(60)
    made.connect(str(path))
    return made
