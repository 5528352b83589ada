"""The agent and the hooks that ask it come and go, in each order, under running jobs."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from clusters.gpu_cluster import GpuCluster
from clusters.two_step_jobs import end_job, start_job
from polling import poll_until

from demo_cluster import ClusterSpec

NODE = "n1"
Step = Callable[[GpuCluster], None]


def start_agent(cluster: GpuCluster) -> None:
    if cluster.slurm.agent_process(NODE) is None:
        cluster.slurm.start_agents(NODE)


def stop_agent(cluster: GpuCluster) -> None:
    agent = cluster.slurm.agent_process(NODE)
    if agent is not None:
        agent.signal(signal.SIGTERM)
        poll_until(lambda: cluster.slurm.agent_process(NODE) is None)


def hooks_with_agent(cluster: GpuCluster) -> None:
    """Install this release's scripts, as an administrator does."""
    command = (cluster.venv / "bin/canhazgpu", "--config", cluster.config_file, "hooks")
    subprocess.run(
        [*command, "install", "--slurm-dir", cluster.root / "etc/slurm"],
        env={"SLURM_CONF": str(cluster.slurm.layout.slurm_conf), "SLURMD_NODENAME": NODE},
        stdout=subprocess.DEVNULL,
        check=True,
        timeout=120,
    )


def hooks_without_agent(cluster: GpuCluster) -> None:
    """Have scripts that know no agent, as a release before it wrote them."""
    for name in ("prolog", "epilog"):
        path = cluster.hook_path(name)
        text, asked = re.subn(r"(?m)^ask_agent\nstatus=\$\?$", "status=120", path.read_text())
        assert asked == 1
        # A script is replaced as a whole: the shell reads it while it runs.
        draft = path.with_name(".draft")
        draft.write_text(text)
        draft.chmod(0o755)
        draft.replace(path)


def execute_agent_anew(cluster: GpuCluster) -> None:
    """Have it become its program once more, as after an upgrade."""
    agent, agents = cluster.slurm.agent_process(NODE), cluster.agents
    assert agent is not None and agents is not None
    before = agents.status(NODE)
    agent.signal(signal.SIGHUP)
    poll_until(lambda: agents.status(NODE)["executions"] > before["executions"])
    assert agents.status(NODE)["pid"] == before["pid"]


WITHOUT: tuple[Step, Step] = (hooks_without_agent, stop_agent)
WITH: tuple[Step, Step] = (start_agent, hooks_with_agent)


@pytest.fixture(scope="module")
def changing(make_cluster: Any) -> GpuCluster:
    """A cluster of one node, whose agent and scripts the tests change."""
    spec = ClusterSpec(nodes=1, gpus_per_node=3, constrain_devices=True)
    return make_cluster(spec, way="agent")


@pytest.fixture(autouse=True)
def _free_and_up_at_the_end(changing: GpuCluster) -> Iterator[None]:
    yield
    changing.cancel_jobs()
    changing.slurm.wait_nodes_idle()
    changing.settle()
    poll_until(lambda: changing.held() == {})


def served(cluster: GpuCluster) -> tuple[int, int]:
    """Return how many jobs the agent that runs has started and ended."""
    if cluster.slurm.agent_process(NODE) is None or cluster.agents is None:
        return 0, 0
    poll_until(lambda: cluster.agents.status(NODE)["children"] <= 0)  # type: ignore[union-attr]
    counts = cluster.agents.status(NODE)["served"]
    return counts.get("JobStart", 0), counts.get("JobEnd", 0)


@pytest.mark.parametrize(
    ("before", "steps", "served_by_agent"),
    [
        pytest.param(WITHOUT, (start_agent, hooks_with_agent), [(0, 0), (1, 3)], id="up-agent"),
        pytest.param(WITHOUT, (hooks_with_agent, start_agent), [(0, 0), (1, 3)], id="up-hooks"),
        pytest.param(WITH, (hooks_without_agent, stop_agent), [(1, 0), (0, 0)], id="down-hooks"),
        pytest.param(WITH, (execute_agent_anew,) * 2, [(2, 0), (3, 3)], id="executed-anew"),
        pytest.param(WITH, (stop_agent, hooks_without_agent), [(0, 0), (0, 0)], id="down-agent"),
    ],
)
def test_jobs_go_on(
    changing: GpuCluster,
    people: tuple[str, str],
    before: tuple[Step, Step],
    steps: tuple[Step, Step],
    served_by_agent: list[tuple[int, int]],
) -> None:
    """A job starts before, between and after the two steps; all end after them."""
    stop_agent(changing)  # its counts begin anew
    for step in before:
        step(changing)
    jobs = [start_job(changing, people[0])]
    seen = []
    for step in steps:
        step(changing)
        jobs.append(start_job(changing, people[0]))
        seen.append(served(changing))
    held = {job: gpu for gpu, job in changing.held().items()}

    printed = [end_job(changing, job, go_on, people[0]) for job, go_on in jobs]

    assert len(held) == 3
    assert printed == [[held[str(job)]] * 3 for job, _ in jobs]
    assert [seen[0], served(changing)] == served_by_agent
