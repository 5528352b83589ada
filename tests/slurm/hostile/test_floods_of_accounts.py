"""Accounts that ask the agent of an installed node for as much as they can, all at once.

Who else asks is answered, jobs have their hooks done by the agent, and what the agent needs has a
bound. How long somebody waits is not judged here.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from clusters.gpu_cluster import GpuCluster
from polling import poll_until

from demo_cluster import ClusterSpec, ensure_users, remove_users

FLOOD = Path(__file__).with_name("flood.py")
ACCOUNTS = tuple(f"cgflood{number}x{os.getpid()}" for number in range(3))
LIMITS = {"max_hooks": 4, "max_requests": 6, "max_requests_per_user": 3, "max_waiters_per_user": 5}
FIRST_REQUESTS = 16
PROCESSES = LIMITS["max_hooks"] + LIMITS["max_requests"] + FIRST_REQUESTS + 12
"""Its children: those who ask, the scanner, the watcher, what these start, and one that waits."""
MEMORY_MB = 160
SHOW = 'echo "got $CUDA_VISIBLE_DEVICES"'


@pytest.fixture(scope="module")
def accounts() -> Iterator[tuple[str, ...]]:
    created = ensure_users(ACCOUNTS)
    yield ACCOUNTS
    remove_users(created)


@pytest.fixture(scope="module")
def cluster(make_cluster: Any) -> GpuCluster:
    spec = ClusterSpec(nodes=1, gpus_per_node=4)
    return make_cluster(spec, way="agent", agent=LIMITS)


class Use:
    """The most processes and memory that the agent and all below it had at a time."""

    def __init__(self, agent: int) -> None:
        self.agent, self.processes, self.memory_kb = agent, 0, 0
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        while not self._ends.wait(0.5):
            found = below(self.agent)
            self.processes = max(self.processes, len(found))
            self.memory_kb = max(self.memory_kb, sum(map(pss_kb, (self.agent, *found))))

    def __enter__(self) -> Use:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()


def below(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    children = [int(one) for one in text.split()]
    return [*children, *(one for child in children for one in below(child))]


def pss_kb(pid: int) -> int:
    with contextlib.suppress(OSError, IndexError):
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        return int(text.partition("\nPss:")[2].split()[0])
    return 0


@contextlib.contextmanager
def floods(cluster: GpuCluster, wanted: dict[str, tuple[str, int, str]]) -> Iterator[None]:
    """Have each user flood the agent inside the block."""
    script = cluster.root / "flood.py"
    shutil.copy(FLOOD, script)
    script.chmod(0o644)
    socket_path = str(cluster.root / "run" / "n1" / "agent" / "agent.sock")
    processes: list[subprocess.Popen[str]] = []
    try:
        for user, (what, count, gpu) in wanted.items():
            words = ["/usr/bin/python3", "-I", str(script), what, socket_path, str(count), gpu]
            processes.append(cluster.slurm.popen(words, user=user))
        for one in processes:
            assert one.stdout is not None
            assert one.stdout.readline() == "flood\n"
        yield
        assert [one.poll() for one in processes] == [None] * len(processes)
    finally:
        for one in processes:
            one.kill()
            one.communicate()


def asked(cluster: GpuCluster, user: str, *words: str) -> subprocess.CompletedProcess[str]:
    """The command as somebody types it on the node, through the agent."""
    agent = cluster.root / "run" / "n1" / "agent" / "agent.sock"
    program = ["/usr/bin/env", f"CANHAZGPU_AGENT_SOCKET={agent}", f"{cluster.venv}/bin/canhazgpu"]
    return cluster.slurm.run([*program, *words], user=user, timeout_s=120)


def waiters(cluster: GpuCluster, user: str) -> list[str]:
    told = json.loads(asked(cluster, user, "queue", "--json").stdout)
    return [one["user"] for node in told["nodes"] for one in node["queue"]]


def test_who_floods_the_agent_keeps_nobody_else_from_it(
    cluster: GpuCluster,
    people: tuple[str, str],
    accounts: tuple[str, ...],
    figures: Callable[[str], None],
) -> None:
    alice, bob = people
    assert cluster.agents is not None
    cluster.slurm.submit("sleep 600", "--gres=gpu:1", user=bob)
    poll_until(lambda: len(cluster.held()) == 1)
    (gpu,) = cluster.held()
    other = cluster.uuids_of_positions("n1")[-1]
    agent = cluster.agents.status("n1")
    waits = {accounts[1]: ("waiters", 12, gpu)}
    rest = {accounts[0]: ("connections", 200, gpu), accounts[2]: ("history", 6, other)}
    most = LIMITS["max_waiters_per_user"]
    with Use(agent["pid"]) as use, floods(cluster, rest):
        with floods(cluster, waits):
            poll_until(lambda: len(waiters(cluster, bob)) >= most, "those who wait")
            told = asked(cluster, alice, "run", "--gpus", "1", "--nonblock", "--", "true")
            # Who comes later has a later turn.
            assert told.returncode == 75 and "others wait" in told.stderr
            is_served(cluster, alice, bob)
            assert waiters(cluster, bob).count(accounts[1]) <= most
        ran = asked(cluster, alice, "run", "--gpus", "1", "--wait", "100s", "--", "true")
        assert (ran.returncode, ran.stdout) == (0, ""), ran.stderr
        is_served(cluster, alice, bob)
    figures(f"the agent under floods: {use.processes} processes, {use.memory_kb >> 10} MiB")
    assert 3 < use.processes <= PROCESSES
    assert 0 < use.memory_kb < MEMORY_MB * 1024

    poll_until(lambda: cluster.agents.status("n1")["children"] <= 0, "the agent to be idle")
    after = cluster.agents.status("n1")
    assert (after["pid"], after["faults"]) == (agent["pid"], [])
    assert after["refused"] > agent["refused"] + 100
    poll_until(lambda: waiters(cluster, bob) == [], "nobody to wait")
    assert asked(cluster, accounts[2], "release").returncode in (0, 1)
    poll_until(lambda: list(cluster.held()) == [gpu], "only the job to hold a GPU")
    cluster.cancel_jobs()
    cluster.slurm.wait_nodes_idle()


def is_served(cluster: GpuCluster, alice: str, bob: str) -> None:
    """One who looks is answered, and a job has its hooks."""
    seen = asked(cluster, bob, "status", "--json")
    assert (seen.returncode, seen.stderr) == (0, "")
    job = cluster.slurm.submit(SHOW, "--gres=gpu:1", user=alice)
    assert cluster.slurm.wait_job(job)["JobState"] == "COMPLETED"
