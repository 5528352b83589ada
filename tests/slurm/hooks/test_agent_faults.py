"""An agent that is killed, stopped or started while jobs run, on the real Slurm.

Jobs go on, no GPU is granted twice, none is leaked, and no node is drained.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from clusters.gpu_cluster import GpuCluster
from clusters.job_spans import JobSpans
from polling import poll_until

from demo_cluster import ClusterSpec

NODE = "n1"
GPUS = 4


@pytest.fixture(scope="module")
def unreliable(make_cluster: Any) -> GpuCluster:
    """A cluster of one node, whose agent the tests kill and stop."""
    spec = ClusterSpec(nodes=1, gpus_per_node=GPUS)
    return make_cluster(spec, way="agent", slurm={"assignment": "canhazgpu"})


@pytest.fixture(scope="module")
def module_spans(unreliable: GpuCluster) -> JobSpans:
    return JobSpans(unreliable)


@pytest.fixture
def spans(unreliable: GpuCluster, module_spans: JobSpans) -> Iterator[JobSpans]:
    """The jobs' GPUs, on a node with an agent at the test's beginning."""
    if unreliable.slurm.agent_process(NODE) is None:
        unreliable.slurm.start_agents(NODE)
    yield module_spans
    unreliable.cancel_jobs()
    # Idle and nothing else: no node is drained.
    unreliable.slurm.wait_nodes_idle()
    unreliable.settle()
    module_spans.assert_nothing_left()
    module_spans.assert_nothing_shared()


@contextlib.contextmanager
def stopped(cluster: GpuCluster) -> Iterator[None]:
    """Have the agent stopped inside the block."""
    agent = cluster.slurm.agent_process(NODE)
    assert agent is not None
    agent.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        agent.signal(signal.SIGCONT)


def submit(cluster: GpuCluster, spans: JobSpans, seconds: float, user: str, *args: str) -> int:
    return cluster.slurm.submit(f"exec {spans.hold(seconds)}", "--gres=gpu:1", *args, user=user)


def served(cluster: GpuCluster, method: str) -> int:
    assert cluster.agents is not None
    return int(cluster.agents.status(NODE)["served"].get(method, 0))


def until_seen(spans: JobSpans, job: int) -> None:
    """Wait until the job's task runs and sees the GPU that it was granted."""
    poll_until(lambda: spans.spans_of(job))
    (gpu,) = spans.visible_gpus(job)[NODE]
    assert spans.granted_gpus(job) == {NODE: {gpu}}


def assert_completed(cluster: GpuCluster, job: int) -> None:
    ended = cluster.slurm.wait_job(job)
    assert (ended["JobState"], ended["Restarts"]) == ("COMPLETED", "0")


def test_jobs_go_on_without_their_agent_and_the_next_one_serves(
    unreliable: GpuCluster, spans: JobSpans, people: tuple[str, str]
) -> None:
    alice, bob = people
    before = submit(unreliable, spans, 300, alice)
    until_seen(spans, before)
    assert served(unreliable, "JobStart") >= 1

    unreliable.slurm.kill_agent(NODE)
    without = submit(unreliable, spans, 300, bob)
    until_seen(spans, without)
    short = submit(unreliable, spans, 0.2, alice)
    assert_completed(unreliable, short)
    assert unreliable.slurm.job(before)["JobState"] == "RUNNING"

    unreliable.slurm.start_agents(NODE)
    after = submit(unreliable, spans, 0.2, bob)
    assert_completed(unreliable, after)
    # The new agent ends what the one before began, and what none did.
    for job in (before, without):
        unreliable.slurm.run(["scancel", "--signal=TERM", "--full", str(job)])
        assert_completed(unreliable, job)
    unreliable.slurm.wait_nodes_idle()
    poll_until(lambda: (served(unreliable, "JobStart"), served(unreliable, "JobEnd")) == (1, 3))


def test_an_agent_that_dies_amid_a_prolog_is_no_fault_of_the_jobs(
    unreliable: GpuCluster, spans: JobSpans, people: tuple[str, str]
) -> None:
    node = unreliable.state.node(NODE)
    node.inject("nvmlDeviceGetMemoryInfo", delay_ms=1000)
    agents = unreliable.agents
    assert agents is not None
    try:
        job = submit(unreliable, spans, 0.2, people[0])
        poll_until(lambda: agents.handler(NODE, job))
        unreliable.slurm.kill_agent(NODE)
        assert_completed(unreliable, job)
    finally:
        node.clear_injections()


def test_a_stopped_agent_costs_its_hooks_time_alone(
    unreliable: GpuCluster, spans: JobSpans, people: tuple[str, str]
) -> None:
    alice, bob = people
    before = submit(unreliable, spans, 300, alice)
    until_seen(spans, before)
    with stopped(unreliable):
        # Its prolog and its epilog.
        assert_completed(unreliable, submit(unreliable, spans, 0.2, bob))
        meanwhile = submit(unreliable, spans, 300, bob)
        until_seen(spans, meanwhile)
        unreliable.slurm.run(["scancel", str(before)])
        unreliable.slurm.wait_job(before)
        poll_until(lambda: list(unreliable.held().values()) == [str(meanwhile)])
    # Nothing that the agent reads only now is done a second time.
    poll_until(lambda: unreliable.agents and unreliable.agents.status(NODE)["children"] <= 0)
    assert list(unreliable.held().values()) == [str(meanwhile)]
    began = served(unreliable, "JobStart")
    assert_completed(unreliable, submit(unreliable, spans, 0.2, alice))
    assert served(unreliable, "JobStart") == began + 1


def test_many_jobs_while_the_agent_is_killed_again_and_again(
    unreliable: GpuCluster, spans: JobSpans, people: tuple[str, str]
) -> None:
    alice, _ = people
    array = submit(unreliable, spans, 0.3, alice, "--array=1-16")

    def ended() -> int:
        # Each task of the array has a job's number of its own.
        return len([one for one in spans.all_spans() if int(one.owner[0].split(".")[0]) >= array])

    for times in (3, 6, 9, 12):
        poll_until(lambda least=times: ended() >= least)
        unreliable.slurm.kill_agent(NODE)
        unreliable.slurm.start_agents(NODE)
    poll_until(lambda: ended() == 16)
    # Each was granted one GPU, which is the one that it saw.
    granted = spans.all_granted_gpus()
    seen = {one.owner[0]: {one.node: set(one.gpus)} for one in spans.all_spans()}
    assert {name: gpus for name, gpus in granted.items() if name in seen} == seen
