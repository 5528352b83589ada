"""A job's MIG instance is the very one that Slurm gave it, beside whole GPUs on the same node.

The private Slurm has the device files of whole GPUs and of instances, and its hooks see the
simulated driver's files below /proc/driver. Where Slurm constrains devices, the kernel is asked
which files a task may open.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import Any

import pytest
from clusters.gpu_cluster import GpuCluster
from clusters.mig_files import capability_files
from clusters.seen_devices import (
    Seen,
    assert_all_free,
    first_task,
    install_show,
    seen_in,
    submitted,
)
from polling import poll_until

from demo_cluster import ClusterSpec
from demo_cluster.spec import GPU_MAJOR

pytestmark = [pytest.mark.parts(2), pytest.mark.release]
MINORS = (107, 103, 150, 111)
DIVIDED = 103
INSTANCES = 3
TYPES = ("h100", "h100", "h100", *["1g.10gb"] * INSTANCES)
"""Slurm counts the instances from 0: slurm.conf declares their type first."""


def spec(*, multiple: bool, **changes: Any) -> ClusterSpec:
    whole = tuple((f"nvidia{minor}",) for minor in MINORS if minor != DIVIDED)
    parts = tuple(
        (f"nvidia{DIVIDED}", *capability_files(DIVIDED, place))
        if multiple
        else capability_files(DIVIDED, place)[1:]
        for place in range(INSTANCES)
    )
    return ClusterSpec(
        nodes=1,
        minors=(MINORS,),
        gpu_files=(*whole, *parts),
        gpu_types=TYPES,
        shows_driver_proc=True,
        **changes,
    )


def prepared(cluster: GpuCluster) -> GpuCluster:
    node = cluster.state.node("n1")
    for place in range(INSTANCES):
        divided_gpu(cluster).add_mig(place)
    node.write_mig_proc(cluster.slurm.layout.driver_proc)
    install_show(cluster)
    return cluster


def divided_gpu(cluster: GpuCluster) -> Any:
    gpus = cluster.state.node("n1").gpus
    return next(gpu for gpu in gpus if gpu.text("minor", "") == str(DIVIDED))


@pytest.fixture(scope="module")
def constrained_cluster(make_cluster: Any) -> GpuCluster:
    return prepared(make_cluster(spec(multiple=True, constrain_devices=True)))


@pytest.fixture(scope="module")
def unconstrained_cluster(make_cluster: Any) -> GpuCluster:
    return prepared(make_cluster(spec(multiple=False)))


@pytest.fixture(scope="module")
def capability_cluster(make_cluster: Any) -> GpuCluster:
    """Devices are constrained, and an instance is its compute instance's file alone.

    The divided GPU's own file is there too, as the driver makes it.
    """
    cluster = prepared(make_cluster(spec(multiple=False, constrain_devices=True)))
    device = cluster.slurm.layout.devices("n1") / f"nvidia{DIVIDED}"
    os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(GPU_MAJOR, DIVIDED))
    device.chmod(0o666)
    return cluster


@pytest.fixture
def constrained(constrained_cluster: GpuCluster) -> Iterator[GpuCluster]:
    yield constrained_cluster
    assert_all_free(constrained_cluster)


@pytest.fixture(params=["slurm", "canhazgpu"])
def chooser(request: pytest.FixtureRequest) -> str:
    """Who chooses a job's devices."""
    return str(request.param)


@pytest.fixture
def unconstrained(unconstrained_cluster: GpuCluster, chooser: str) -> Iterator[GpuCluster]:
    unconstrained_cluster.configure(slurm={"assignment": chooser})
    yield unconstrained_cluster
    assert_all_free(unconstrained_cluster)


def held_by(cluster: GpuCluster, job: int) -> list[str]:
    return sorted(uuid for uuid, holder in cluster.held().items() if holder == str(job))


def instances(cluster: GpuCluster) -> list[str]:
    """The instances' UUIDs in Slurm's order."""
    return [divided_gpu(cluster).mig(place).uuid for place in range(INSTANCES)]


def whole_gpus(cluster: GpuCluster) -> list[str]:
    by_minor = {gpu.text("minor", ""): gpu.uuid for gpu in cluster.state.node("n1").gpus}
    return [by_minor[str(minor)] for minor in MINORS if minor != DIVIDED]


def device_names(*paths: str) -> frozenset[str]:
    return frozenset(path.rpartition("/")[2] for path in paths)


def both_tasks(cluster: GpuCluster, job: int, user: str) -> list[Seen]:
    """What the batch script and the task of its step saw."""

    def seen() -> list[Seen] | None:
        found = seen_in(cluster.slurm.output(job, user=user))
        return found if len(found) == 2 else None

    return poll_until(seen)


def test_a_job_has_the_instance_that_it_can_open(constrained: GpuCluster, people: Any) -> None:
    alice, bob = people
    script = f"{constrained.root}/show batch\nsleep 600"
    with (
        submitted(constrained, script, "--gres=gpu:1g.10gb:1", user=bob) as other,
        submitted(constrained, script, "--gres=gpu:1g.10gb:1", user=alice) as job,
        submitted(constrained, script, "--gres=gpu:h100:2", user=alice) as whole,
    ):
        uuids = instances(constrained)
        for number, user in ((other, bob), (job, alice)):
            task = first_task(constrained, number, user)
            place = int(task.positions)
            files = (f"nvidia{DIVIDED}", *capability_files(DIVIDED, place))
            assert task.can_open == device_names(*files)
            assert task.visible == uuids[place]
            assert held_by(constrained, number) == [uuids[place]]
        task = first_task(constrained, whole, alice)
        assert task.positions == "3,4"
        assert task.can_open == {f"nvidia{MINORS[0]}", f"nvidia{MINORS[2]}"}
        assert held_by(constrained, whole) == sorted(whole_gpus(constrained)[:2])
        shown = constrained.canhazgpu("explain", str(job), node="n1").stdout
        assert held_by(constrained, job)[0] in shown


def test_a_job_that_uses_its_instance_is_no_alarm(constrained: GpuCluster, people: Any) -> None:
    alice, _ = people
    script = f"{constrained.gpu_process()} --memory-mb 3000"
    with submitted(constrained, script, "--gres=gpu:1g.10gb:1", user=alice) as job:
        held = poll_until(lambda: held_by(constrained, job))
        used = poll_until(lambda: constrained.status()["n1"][held[0]]["processes"])
        assert [(one["user"], one["job"]) for one in used] == [(alice, f"slurm:{job}")]
        gpus = constrained.status()["n1"]
        assert {uuid for uuid, gpu in gpus.items() if gpu["processes"]} == set(held)
        assert [gpu["intruders"] for gpu in gpus.values()] == [[]] * len(gpus)
        checked = constrained.canhazgpu("validate", "--expected-gpus", str(len(MINORS)), node="n1")
        assert "3 GPUs and 3 MIG instances, 1 reserved" in checked.stdout
        assert constrained.health_check("n1").returncode == 0
        assert held_by(constrained, job) == held


def test_each_task_sees_one_instance_and_is_told_so(constrained: GpuCluster, people: Any) -> None:
    alice, _ = people
    show = f"{constrained.root}/show"
    script = f"""
    {show} batch
    srun -n2 --gpus-per-task=1 {show} per-task
    srun -n2 --gpu-bind=single:1 {show} single
    srun -n2 {show} plain
    """
    job = constrained.slurm.submit(script, "--gres=gpu:1g.10gb:2", "-n2", user=alice)
    ended = constrained.slurm.wait_job(job)
    output = constrained.slurm.output(job, user=alice)
    assert ended["JobState"] == "COMPLETED", output
    mine = instances(constrained)[:2]
    by_tag: dict[str, list[Seen]] = {}
    for one in seen_in(output):
        by_tag.setdefault(one.tag, []).append(one)
    assert [one.visible for one in by_tag["batch"]] == mine[:1]
    for tag in ("per-task", "single"):
        assert sorted(one.visible for one in by_tag[tag]) == sorted(mine), tag
        for one in by_tag[tag]:
            place = mine.index(one.visible)
            assert device_names(*capability_files(DIVIDED, place)) <= one.can_open
    assert [one.visible for one in by_tag["plain"]] == mine[:1] * 2
    told = [line for line in output.splitlines() if "one MIG instance" in line]
    assert len(told) == 3  # the batch script, and the tasks that Slurm bound to none of the two
    assert all(mine[0] in line for line in told)


def test_instances_by_their_capability_file_alone(
    unconstrained: GpuCluster, chooser: str, people: Any
) -> None:
    alice, bob = people
    script = f"{unconstrained.root}/show batch\nsleep 600"
    with (
        submitted(unconstrained, script, "--gres=gpu:1g.10gb:1", user=bob) as other,
        submitted(unconstrained, script, "--gres=gpu:1g.10gb:1", user=alice) as job,
        submitted(unconstrained, script, "--gres=gpu:h100:3", user=alice) as whole,
    ):
        seen = {
            number: first_task(unconstrained, number, user).visible
            for number, user in ((other, bob), (job, alice), (whole, alice))
        }
        assert {seen[other], seen[job]} < set(instances(unconstrained))
        assert seen[other] != seen[job]
        assert sorted(seen[whole].split(",")) == sorted(whole_gpus(unconstrained))
        for number in (other, job, whole):
            assert held_by(unconstrained, number) == sorted(seen[number].split(","))
        if chooser == "slurm":
            positions = first_task(unconstrained, job, alice).positions
            assert seen[job] == instances(unconstrained)[int(positions)]


def test_capability_files_alone_where_devices_are_constrained(
    capability_cluster: GpuCluster, people: Any
) -> None:
    alice, bob = people
    cluster = capability_cluster
    script = f"{cluster.root}/show batch\nsrun -n1 {cluster.root}/show step\nsleep 600"
    # Slurm does not count the divided GPU's own file, and denies it nobody.
    shared = frozenset({f"nvidia{DIVIDED}"})
    with (
        submitted(cluster, script, "--gres=gpu:1g.10gb:1", user=bob) as other,
        submitted(cluster, script, "--gres=gpu:1g.10gb:1", user=alice) as job,
        submitted(cluster, script, "--gres=gpu:h100:1", user=alice) as whole,
    ):
        for number, user in ((other, bob), (job, alice)):
            tasks = both_tasks(cluster, number, user)
            (place,) = {int(task.positions) for task in tasks}
            own = device_names(capability_files(DIVIDED, place)[1])
            assert [task.can_open for task in tasks] == [own | shared] * 2
            assert {task.visible for task in tasks} == {instances(cluster)[place]}
            assert held_by(cluster, number) == [instances(cluster)[place]]
        tasks = both_tasks(cluster, whole, alice)
        assert {task.can_open for task in tasks} == {shared | {f"nvidia{MINORS[0]}"}}
        assert {task.visible for task in tasks} == {whole_gpus(cluster)[0]}
        assert held_by(cluster, whole) == whole_gpus(cluster)[:1]
    assert_all_free(cluster)


def test_without_the_drivers_files_instances_are_refused_and_whole_gpus_go_on(
    constrained: GpuCluster, people: Any
) -> None:
    alice, _ = people
    shown = constrained.slurm.layout.driver_proc
    hidden = [(one, shown / f".{one.name}") for one in (shown / "nvidia", shown / "nvidia-caps")]
    for path, other in hidden:
        path.rename(other)
    try:
        with submitted(constrained, "sleep 600", "--gres=gpu:1g.10gb:1", user=alice) as job:
            poll_until(lambda: constrained.slurm.job(job)["Restarts"] == "1")
            constrained.slurm.wait_nodes_idle()
            asked = ["squeue", "--noheader", "--format=%k", f"--jobs={job}"]
            comment = constrained.slurm.run(asked, check=True).stdout
            assert "which MIG instance that is cannot be known" in comment
        script = f"{constrained.root}/show batch"
        whole = constrained.slurm.submit(script, "--gres=gpu:h100:1", user=alice)
        assert constrained.slurm.wait_job(whole)["JobState"] == "COMPLETED"
        assert first_task(constrained, whole, alice).can_open == {f"nvidia{MINORS[0]}"}
    finally:
        for path, other in hidden:
            other.rename(path)
