"""Whatever Slurm does to jobs: no GPU is granted twice, none is leaked, no node is drained."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from clusters.gpu_cluster import GpuCluster, poll_until
from clusters.job_spans import JobSpans

from demo_cluster import ClusterSpec
from demo_cluster.host.processes import wait_until
from fake_nvml import start_gpu_process

pytestmark = pytest.mark.parts(3)
MANY_JOBS_TIMEOUT_S = 240.0
PREEMPTION = """
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=urgent Nodes=n1,n2,n3,n4 State=UP PriorityTier=10 PreemptMode=OFF
"""


@pytest.fixture(scope="module")
def cluster(make_cluster: Any) -> GpuCluster:
    return make_cluster(ClusterSpec(nodes=4, gpus_per_node=8, slurm_conf_extra=PREEMPTION))


@pytest.fixture(scope="module")
def module_spans(cluster: GpuCluster) -> JobSpans:
    return JobSpans(cluster)


@pytest.fixture(autouse=True)
def spans(cluster: GpuCluster, module_spans: JobSpans) -> Iterator[JobSpans]:
    yield module_spans
    for job in cluster.slurm.run(["squeue", "-h", "-o", "%A"]).stdout.split():
        cluster.slurm.run(["scancel", job])
    # Idle and nothing else: no node is drained.
    cluster.slurm.wait_nodes_idle()
    cluster.settle()
    module_spans.assert_nothing_left()
    module_spans.assert_nothing_shared()


@pytest.fixture
def alice(people: tuple[str, str]) -> str:
    return people[0]


def until_seen(spans: JobSpans, job: int, attempt: int = 0, tasks: int = 1) -> dict[str, set[str]]:
    """Wait until so many tasks of the job have begun; returns what they see."""
    poll_until(lambda: len(spans.spans_of(job, attempt)) == tasks)
    return spans.visible_gpus(job, attempt)


def submit(
    cluster: GpuCluster, spans: JobSpans, seconds: float, *args: str, user: str, srun: bool = False
) -> int:
    """Submit a job that keeps its GPUs for so long, in a step's tasks or in its script."""
    hold = spans.hold(seconds)
    return cluster.slurm.submit(f"{'srun ' if srun else 'exec '}{hold}", *args, user=user)


def state_of(cluster: GpuCluster, job: int, state: str) -> None:
    cluster.slurm.wait_job(job, states=(state,))


def start_again(cluster: GpuCluster, job: int) -> None:
    """Let a requeued job run now rather than after Slurm's two minutes."""
    poll_until(lambda: cluster.slurm.job(job)["JobState"] == "PENDING")
    # In the very second of the requeue slurmd refuses the job: its credential is revoked.
    cluster.slurm.run(["scontrol", "update", f"job={job}", "StartTime=now+3"], check=True)


def finish(cluster: GpuCluster, job: int) -> None:
    """Let a job that holds its GPUs in its script come to its end."""
    cluster.slurm.run(["scancel", "--batch", "--signal=TERM", str(job)], check=True)


def assert_completed(
    cluster: GpuCluster, spans: JobSpans, job: int, attempt: int = 0
) -> dict[str, set[str]]:
    """The attempt ran to its end and saw exactly what it was granted; returns that."""
    ended = cluster.slurm.wait_job(job)
    assert (ended["JobState"], ended["Restarts"]) == ("COMPLETED", str(attempt))
    seen = spans.visible_gpus(job, attempt)
    assert seen == spans.granted_gpus(job, attempt)
    return seen


def counts(seen: dict[str, set[str]]) -> list[int]:
    return sorted(len(gpus) for gpus in seen.values())


@pytest.mark.release
@pytest.mark.parametrize(
    ("asked", "each_task", "each_node"),
    [
        pytest.param(("-N2", "--gpus=6", "--ntasks-per-node=1"), None, 6, id="gpus"),
        pytest.param(("-N3", "--gpus-per-node=2", "-n3"), [2, 2, 2], [2, 2, 2], id="per node"),
        pytest.param(
            ("-N1", "-n3", "--gpus-per-task=2"), [2, 2, 2], [6], id="per task on one node"
        ),
        pytest.param(
            ("-N2", "--ntasks-per-node=2", "--gpus-per-task=1"),
            [1, 1, 1, 1],
            [2, 2],
            id="per task on two nodes",
        ),
    ],
)
def test_every_way_to_ask_for_gpus(
    cluster: GpuCluster,
    spans: JobSpans,
    alice: str,
    asked: tuple[str, ...],
    each_task: list[int] | None,
    each_node: list[int] | int,
) -> None:
    job = submit(cluster, spans, 0.5, *asked, user=alice, srun=True)
    seen = assert_completed(cluster, spans, job)
    if isinstance(each_node, int):
        assert sum(counts(seen)) == each_node and len(seen) == 2
    else:
        assert counts(seen) == each_node
    if each_task is not None:
        assert sorted(len(span.gpus) for span in spans.spans_of(job)) == each_task


@pytest.mark.release
def test_a_task_sees_the_gpus_it_is_bound_to(
    cluster: GpuCluster, spans: JobSpans, alice: str
) -> None:
    binds = {
        "single:1": 1,
        "single:2": 1,
        "map_gpu:3,1,0,2": 1,
        "mask_gpu:0x3,0xc,0x3,0xc": 2,
        "none": 4,
    }
    steps = [
        f"srun -n4 --gpu-bind={bind} {spans.hold(0.2, f'bind{place}')}"
        for place, bind in enumerate(binds)
    ]
    job = cluster.slurm.submit("\n".join(steps), "-N1", "-n4", "--gres=gpu:4", user=alice)
    assert counts(assert_completed(cluster, spans, job)) == [4]
    for place, each in enumerate(binds.values()):
        step = [span for span in spans.spans_of(job) if span.owner[1] == f"bind{place}"]
        assert [len(span.gpus) for span in step] == [each] * 4
        # Two tasks to each GPU or pair, but where every task has a GPU of its own, or all have all.
        assert len({span.gpus for span in step}) == (4, 2, 4, 2, 1)[place]


def test_an_exclusive_job_sees_what_it_holds(
    cluster: GpuCluster, spans: JobSpans, alice: str
) -> None:
    job = submit(cluster, spans, 1.5, "--exclusive", "--gres=gpu:2", "-wn1", user=alice)
    other = submit(cluster, spans, 0.5, "--gres=gpu:1", "-wn1", user=alice)
    assert_completed(cluster, spans, job)
    assert counts(assert_completed(cluster, spans, other)) == [1]
    (first,), (second,) = spans.spans_of(job), spans.spans_of(other)
    assert first.ended < second.began


def test_overlapping_steps_share_their_jobs_gpus(
    cluster: GpuCluster, spans: JobSpans, alice: str
) -> None:
    step = f"srun --overlap -n1 --gres=gpu:2 {spans.hold(2)} &"
    job = cluster.slurm.submit(f"{step}\n{step}\nwait", "-N1", "--gres=gpu:2", user=alice)
    assert counts(assert_completed(cluster, spans, job)) == [2]
    one, other = spans.spans_of(job)
    assert one.gpus == other.gpus
    assert one.began < other.ended and other.began < one.ended


@pytest.mark.release
def test_every_part_of_a_heterogeneous_job_has_its_own(
    cluster: GpuCluster, spans: JobSpans, people: tuple[str, str]
) -> None:
    alice, bob = people
    steps = [
        f"srun --het-group=0 {spans.hold(0.3, 'first')}",
        f"srun --het-group=1 -n3 --gpu-bind=single:1 {spans.hold(0.3, 'each')}",
        f"srun --het-group=1 -n1 --gres=gpu:1 {spans.hold(0.3, 'one')}",
        f"srun --het-group=0,1 {spans.hold(0.3, 'together')}",
    ]
    script = cluster.slurm.home(alice) / "het.sh"
    script.write_text("\n".join(["#!/bin/sh", spans.hold(0.3, "script"), *steps]) + "\n")
    parts = ["--gres=gpu:2", "-wn1", ":", "--gres=gpu:3", "-n3", "-wn2"]
    # In Slurm's first place on each node, so that its numbers are not those of the GPUs granted.
    n1, n2 = (cluster.state.node(name).gpus[-1] for name in ("n1", "n2"))
    with start_gpu_process(n1, 8000, user=bob), start_gpu_process(n2, 8000, user=bob):
        done = cluster.slurm.run(
            ["sbatch", "--parsable", *parts, str(script)], user=alice, check=True
        )
        leader = int(done.stdout)
        assert cluster.slurm.wait_job(leader)["JobState"] == "COMPLETED"
    first, second = spans.granted_gpus(leader)["n1"], spans.granted_gpus(leader + 1)["n2"]
    assert (len(first), len(second)) == (2, 3)
    seen = {
        part: [
            (span.node, set(span.gpus)) for span in spans.spans_of(leader) if span.owner[1] == part
        ]
        for part in ("script", "first", "each", "one", "together")
    }
    assert seen["script"] == seen["first"] == [("n1", first)]
    assert sorted(len(gpus) for _, gpus in seen["each"]) == [1, 1, 1]
    assert set.union(*(gpus for _, gpus in seen["each"])) == second
    ((node, gpus),) = seen["one"]
    assert node == "n2" and len(gpus) == 1 and gpus < second
    together = [("n1", first)] + [("n2", second)] * 3
    assert sorted(seen["together"], key=lambda one: one[0]) == together


def test_a_preempted_job_runs_again(cluster: GpuCluster, spans: JobSpans, alice: str) -> None:
    low = submit(cluster, spans, 60, "--gres=gpu:8", "-wn1", user=alice)
    until_seen(spans, low)
    high = submit(cluster, spans, 0.5, "--gres=gpu:5", "-wn1", "--partition=urgent", user=alice)
    assert counts(assert_completed(cluster, spans, high)) == [5]
    start_again(cluster, low)
    assert counts(until_seen(spans, low, attempt=1)) == [8]
    assert spans.granted_gpus(low, 0) == spans.granted_gpus(low, 1) == spans.visible_gpus(low, 1)
    (first,), (urgent,) = spans.spans_of(low, 0), spans.spans_of(high)
    assert first.began < first.ended < urgent.began


def test_a_suspended_job_keeps_its_gpus(cluster: GpuCluster, spans: JobSpans, alice: str) -> None:
    job = submit(cluster, spans, 60, "--gres=gpu:6", "-wn1", user=alice)
    seen = until_seen(spans, job)
    cluster.slurm.run(["scontrol", "suspend", str(job)], check=True)
    state_of(cluster, job, "SUSPENDED")
    assert cluster.held("n1") == dict.fromkeys(seen["n1"], str(job))
    other = submit(cluster, spans, 0.5, "--gres=gpu:2", "-wn1", user=alice)
    assert not assert_completed(cluster, spans, other)["n1"] & seen["n1"]
    assert cluster.held("n1") == dict.fromkeys(seen["n1"], str(job))
    cluster.slurm.run(["scontrol", "resume", str(job)], check=True)
    state_of(cluster, job, "RUNNING")
    finish(cluster, job)
    assert assert_completed(cluster, spans, job) == seen


def test_a_job_that_was_requeued_and_held_runs_again(
    cluster: GpuCluster, spans: JobSpans, alice: str
) -> None:
    job = submit(cluster, spans, 4, "-N2", "--gres=gpu:8", user=alice, srun=True)
    until_seen(spans, job, tasks=2)
    cluster.slurm.run(["scontrol", "requeuehold", str(job)], check=True)
    poll_until(lambda: cluster.slurm.job(job)["JobState"] == "PENDING")
    cluster.slurm.wait_nodes_idle()
    spans.assert_nothing_left()
    cluster.slurm.run(["scontrol", "release", str(job)], check=True)
    start_again(cluster, job)
    assert counts(assert_completed(cluster, spans, job, attempt=1)) == [8, 8]


@pytest.mark.parametrize("daemon", ["slurmctld", "slurmd"])
def test_a_daemon_restarted_under_a_job_changes_nothing(
    cluster: GpuCluster, spans: JobSpans, alice: str, daemon: str
) -> None:
    job = submit(cluster, spans, 60, "--gres=gpu:5", "-wn1", user=alice)
    seen = until_seen(spans, job)
    if daemon == "slurmctld":
        cluster.slurm.restart_slurmctld()
    else:
        cluster.slurm.restart_slurmd("n1")
    assert cluster.held("n1") == dict.fromkeys(seen["n1"], str(job))
    other = submit(cluster, spans, 0.5, "--gres=gpu:3", "-wn1", user=alice)
    assert counts(assert_completed(cluster, spans, other)) == [3]
    finish(cluster, job)
    assert assert_completed(cluster, spans, job) == seen


def test_a_job_of_a_node_set_down_runs_again_once_it_is_up(
    cluster: GpuCluster, spans: JobSpans, alice: str
) -> None:
    job = submit(cluster, spans, 60, "--gres=gpu:8", "-wn2", user=alice)
    until_seen(spans, job)
    down = ["node=n2", "state=down", "reason=test"]
    cluster.slurm.run(["scontrol", "update", *down], check=True)
    poll_until(lambda: cluster.slurm.job(job)["JobState"] == "PENDING")
    # Slurm counts a down node's jobs as gone before slurmd has ended them.
    poll_until(lambda: cluster.held("n2") == {})
    # A node whose slurmd registers comes up without this, as ReturnToService says.
    cluster.slurm.run(["scontrol", "update", "node=n2", "state=resume"])
    start_again(cluster, job)
    until_seen(spans, job, attempt=1)
    finish(cluster, job)
    assert counts(assert_completed(cluster, spans, job, attempt=1)) == [8]


def test_all_of_a_job_waits_when_its_second_node_conflicts(
    cluster: GpuCluster, spans: JobSpans, people: tuple[str, str]
) -> None:
    alice, bob = people
    with start_gpu_process(cluster.state.node("n2").gpus[3], 8000, user=bob):
        job = submit(cluster, spans, 1, "-wn1,n2", "-N2", "--gres=gpu:8", user=alice, srun=True)
        poll_until(lambda: cluster.slurm.job(job).get("Reason") == "BeginTime")
        cluster.slurm.wait_nodes_idle()
        spans.assert_nothing_left()
        # Slurm starts the script on the first node while the second one's prolog is at work.
        assert {span.node for span in spans.spans_of(job)} <= {"n1"}
    start_again(cluster, job)
    assert counts(assert_completed(cluster, spans, job, attempt=1)) == [8, 8]


def test_a_hundred_jobs_at_once(
    cluster: GpuCluster, spans: JobSpans, people: tuple[str, str]
) -> None:
    earlier = len(spans.all_spans())
    jobs = [
        submit(cluster, spans, 0.5, "--hold", "--array=1-50", f"--gres=gpu:{gpus}", user=user)
        for gpus, user in enumerate(people, start=1)
    ]
    cluster.slurm.run(["scontrol", "release", *map(str, jobs)], check=True)
    assert wait_until(lambda: len(spans.all_spans()) == earlier + 100, MANY_JOBS_TIMEOUT_S)
    cluster.slurm.wait_nodes_idle()
    cluster.settle()
    granted = spans.all_granted_gpus()
    hundred = [
        span for span in spans.all_spans() if int(span.owner[0].partition(".")[0]) >= jobs[0]
    ]
    assert {span.owner[0].partition(".")[2] for span in hundred} == {"0"}  # nobody was sent back
    assert sorted(len(span.gpus) for span in hundred) == [1] * 50 + [2] * 50
    assert all(granted[span.owner[0]] == {span.node: set(span.gpus)} for span in hundred)


KILL_ONE = """#!/bin/sh
# Kills a hook of the jobs under test after a time of each job's own; both runs of it.
case $SLURM_JOB_ID in
{jobs}
*) exec {python} "$@" ;;
esac
/usr/bin/timeout -s KILL $after_s {python} "$@"
"""


@pytest.mark.parametrize("hook", ["prolog", "epilog"])
def test_hooks_that_are_killed_at_any_moment_leave_nothing(
    cluster: GpuCluster, spans: JobSpans, alice: str, hook: str
) -> None:
    jobs = [
        submit(cluster, spans, 0.5, "--hold", "--gres=gpu:2", f"-wn{place % 4 + 1}", user=alice)
        for place in range(16)
    ]
    # From before Python has started until after the hook would have been done.
    cases = [f"{job}) after_s={0.05 * 1.5**place:.3f} ;;" for place, job in enumerate(jobs)]
    cases[0] = f"{jobs[0]}) kill -KILL $$ ;;"
    killer = cluster.root / f"kill-{hook}"
    script = cluster.hook_path(hook)
    kept = script.read_text()
    (python,) = re.findall(r"^python=(/\S+)$", kept, re.MULTILINE)
    killer.write_text(KILL_ONE.format(jobs="\n".join(cases), python=python))
    killer.chmod(0o755)
    try:
        script.write_text(kept.replace(python, str(killer)))
        cluster.slurm.run(["scontrol", "release", *map(str, jobs)], check=True)
        for job in jobs:
            assert cluster.slurm.wait_job(job)["JobState"] == "COMPLETED"
        cluster.slurm.wait_nodes_idle()
    finally:
        script.write_text(kept)
    # The earliest on n1 was killed before it could do anything.
    assert (hook == "prolog") != (str(jobs[0]) in cluster.held("n1").values())

    def nothing_left() -> bool:
        assert all(cluster.health_check(f"n{number}").returncode == 0 for number in (1, 2, 3, 4))
        return not spans.left()

    poll_until(nothing_left, "the health checks to reap what is left")
    granted = [job for job in jobs if spans.granted_gpus(job)]
    # Some were killed too early for a grant, and some not at all.
    assert (hook == "epilog" or jobs[0] not in granted) and {*jobs[-2:]} <= {*granted}
    assert all(spans.visible_gpus(job) == spans.granted_gpus(job) for job in jobs[-2:])
