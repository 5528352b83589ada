"""Slurm's own choice of devices is binding, and what a task is told is what it may open.

The GPUs have other numbers in every way of counting: Slurm's positions, the device files, and
NVML's indices, so that confusing two of them shows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from clusters.gpu_cluster import GpuCluster
from clusters.seen_devices import (
    Seen,
    assert_all_free,
    first_task,
    install_show,
    run_job,
    seen_in,
    submitted,
)
from polling import poll_until

from demo_cluster import ClusterSpec
from fake_nvml import start_gpu_process

pytestmark = [pytest.mark.parts(2), pytest.mark.release]
MINORS = (107, 103, 150, 111, 120)
SLURMS_NUMBERS = "0,1"  # of the two GPUs that a job may open, whichever they are


@pytest.fixture(scope="module")
def constrained_cluster(make_cluster: Any) -> GpuCluster:
    return prepared(make_cluster(spec(constrain_devices=True)))


@pytest.fixture(scope="module")
def unconstrained_cluster(make_cluster: Any) -> GpuCluster:
    return prepared(make_cluster(spec(), slurm={"assignment": "slurm"}))


@pytest.fixture
def constrained(constrained_cluster: GpuCluster) -> Iterator[GpuCluster]:
    yield constrained_cluster
    assert_all_free(constrained_cluster)


@pytest.fixture
def unconstrained(unconstrained_cluster: GpuCluster) -> Iterator[GpuCluster]:
    yield unconstrained_cluster
    assert_all_free(unconstrained_cluster)


def spec(**changes: Any) -> ClusterSpec:
    return ClusterSpec(nodes=1, gpus_per_node=len(MINORS), minors=(MINORS,), **changes)


def prepared(cluster: GpuCluster) -> GpuCluster:
    install_show(cluster)
    return cluster


@contextmanager
def first_position_taken(cluster: GpuCluster, user: str) -> Iterator[int]:
    first = cluster.uuids_of_positions("n1")[0]
    with submitted(cluster, "sleep 600", "--gres=gpu:1", user=user) as job:
        poll_until(lambda: cluster.held() == {first: str(job)})
        yield job


@contextmanager
def configured(cluster: GpuCluster, **slurm: str) -> Iterator[None]:
    cluster.configure(slurm={"assignment": "auto", **slurm})
    try:
        yield
    finally:
        cluster.configure()


def uuid_by_device(cluster: GpuCluster) -> dict[int, str]:
    return {
        int((gpu.path / "minor").read_text()): gpu.uuid for gpu in cluster.state.node("n1").gpus
    }


def openable(cluster: GpuCluster, task: Seen) -> list[str]:
    """The UUIDs of what the task can open, in Slurm's order."""
    uuids = uuid_by_device(cluster)
    opened = {uuids[number] for number in task.minors}
    return [uuid for uuid in cluster.uuids_of_positions("n1") if uuid in opened]


def seen_by_cuda(cluster: GpuCluster, task: Seen) -> list[str]:
    """The UUIDs of what a CUDA program in the task sees, which counts what it can open."""
    can_open = openable(cluster, task)
    if task.visible == "unset":
        return can_open
    names = task.visible.split(",") if task.visible else []
    numbers = [int(name) for name in names if name.isdecimal()]
    # In which order CUDA counts is not known here: only all of them together are certain.
    return can_open if sorted(numbers) == list(range(len(can_open))) else names


def index_by_uuid(cluster: GpuCluster) -> dict[str, int]:
    return {gpu.uuid: gpu.index for gpu in cluster.state.node("n1").gpus}


def assert_reserved(cluster: GpuCluster, job: int, user: str, uuids: list[str]) -> None:
    """The job holds exactly these GPUs, and everybody is told so."""
    gpus = cluster.status()["n1"]
    mine = {
        uuid: gpu
        for uuid, gpu in gpus.items()
        if gpu["reservation"] and gpu["reservation"]["job_id"] == str(job)
    }
    assert set(mine) == set(uuids)
    for gpu in mine.values():
        assert gpu["state"] == "reserved"
        assert gpu["reservation"]["user"] == user


def test_a_job_is_told_exactly_the_gpus_it_can_open(constrained: GpuCluster, people: Any) -> None:
    alice, bob = people
    script = f"{constrained.root}/show batch\nsleep 600"
    with (
        first_position_taken(constrained, bob) as other,
        submitted(constrained, script, "--gres=gpu:2", user=alice) as job,
    ):
        task = first_task(constrained, job, alice)

        by_position = constrained.uuids_of_positions("n1")
        assert task.positions == "1,2"
        assert set(task.minors) == {MINORS[1], MINORS[2]}
        assert task.visible == SLURMS_NUMBERS
        assert task.uuids.split(",") == openable(constrained, task) == by_position[1:3]
        assert task.order == "unset"
        assert_reserved(constrained, job, alice, by_position[1:3])
        assert_reserved(constrained, other, bob, by_position[:1])


def test_every_task_is_told_the_gpus_it_can_open(constrained: GpuCluster, people: Any) -> None:
    alice, bob = people
    show = constrained.root / "show"
    script = f"""
    srun --exact -n1 --gres=gpu:1 sh -c '{show} exact; sleep 2' &
    srun --exact -n1 --gres=gpu:1 sh -c '{show} exact; sleep 2' &
    wait
    srun -n2 --gpus-per-task=1 {show} per-task
    srun -n2 --gpu-bind=single:1 {show} single
    srun -n2 --gpu-bind=map_gpu:1,0 {show} map
    srun -n2 --gpu-bind=mask_gpu:2,3 {show} mask
    srun -n2 --gpu-bind=none {show} unbound
    srun {show} plain
    srun --gres=none {show} none
    """
    with first_position_taken(constrained, bob):
        seen = run_job(constrained, script, "--gres=gpu:2", "-n2", user=alice)

    mine = constrained.uuids_of_positions("n1")[1:3]
    assert {tag: len(tasks) for tag, tasks in seen.items()} == dict.fromkeys(
        ("exact", "per-task", "single", "map", "mask", "unbound", "plain", "none"), 2
    )
    for tag in ("exact", "per-task", "single", "map", "mask", "unbound", "plain"):
        for task in seen[tag]:
            assert task.uuids.split(",") == openable(constrained, task), tag
            assert seen_by_cuda(constrained, task) == openable(constrained, task), tag
    for tag in ("exact", "per-task", "single", "map"):
        assert [task.visible for task in seen[tag]] == ["0", "0"], tag
        assert sorted(task.uuids for task in seen[tag]) == sorted(mine), tag
    assert sorted(len(task.minors) for task in seen["mask"]) == [1, 2]
    assert [task.uuids.split(",") for task in seen["unbound"]] == [mine, mine]
    assert [(task.visible, task.uuids) for task in seen["plain"]] == [
        (SLURMS_NUMBERS, ",".join(mine))
    ] * 2
    for task in seen["none"]:
        assert (task.visible, task.minors, task.uuids) == ("unset", (), "unset")


def test_tasks_without_a_batch_script_are_told_too(constrained: GpuCluster, people: Any) -> None:
    alice, bob = people
    show = str(constrained.root / "show")
    with first_position_taken(constrained, bob):
        done = constrained.slurm.run(
            ["srun", "-n2", "--gpus-per-task=1", show, "direct"], user=alice, check=True
        )

    tasks = seen_in(done.stdout)
    for task in tasks:
        assert task.visible == "0"
        assert task.uuids.split(",") == openable(constrained, task)
    assert sorted(task.uuids for task in tasks) == sorted(constrained.uuids_of_positions("n1")[1:3])


def test_uuids_name_what_every_task_can_open(constrained: GpuCluster, people: Any) -> None:
    alice, bob = people
    show = constrained.root / "show"
    script = f"""
    {show} batch
    srun -n2 --gpus-per-task=1 {show} per-task
    srun -n2 --gpu-bind=mask_gpu:2,3 {show} mask
    srun -n2 --gpu-bind=none {show} unbound
    """
    with first_position_taken(constrained, bob), configured(constrained, export="uuid"):
        seen = run_job(constrained, script, "--gres=gpu:2", "-n2", user=alice)

    tasks = [task for tag in ("batch", "per-task", "mask", "unbound") for task in seen[tag]]
    assert len(tasks) == 7
    for task in tasks:
        assert task.visible.split(",") == openable(constrained, task) == task.uuids.split(",")


def test_the_sites_variable_holds_the_uuids_in_each_task(
    constrained: GpuCluster, people: Any
) -> None:
    alice, _ = people
    say = 'echo "SAID ${NVIDIA_VISIBLE_DEVICES-unset} ${CANHAZGPU_GPUS-unset}"'
    script = f"{say}\nsrun -n1 sh -c '{say}'\nsrun -n1 --gres=none sh -c '{say}'"
    cluster = constrained
    cluster.configure(slurm={"assignment": "auto", "export_also": ["NVIDIA_VISIBLE_DEVICES"]})
    try:
        with submitted(cluster, script, "--gres=gpu:2", user=alice) as job:
            cluster.slurm.wait_job(job)
            lines = cluster.slurm.output(job, user=alice).splitlines()
    finally:
        cluster.configure()

    # A step may have to wait for the one before it; srun says so.
    output = [line for line in lines if line.startswith("SAID")]
    names = ",".join(cluster.uuids_of_positions("n1")[:2])
    assert output == [f"SAID {names} {names}"] * 2 + ["SAID unset unset"]


def test_commands_inside_a_job_see_its_gpus(constrained: GpuCluster, people: Any) -> None:
    alice, bob = people
    show, program = constrained.root / "show", constrained.venv / "bin" / "canhazgpu"
    script = f"""
    export CANHAZGPU_CONFIG={constrained.config_file}
    {program} status --json >/dev/null; echo "status=$?"
    {program} run --gpus 2 -- {show} whole
    {program} run -- {show} part
    srun --exact -n1 --gres=gpu:1 {program} run -- {show} step
    """
    with (
        first_position_taken(constrained, bob),
        submitted(constrained, script, "--gres=gpu:2", user=alice) as job,
    ):
        constrained.slurm.wait_job(job)
        output = constrained.slurm.output(job, user=alice)

    mine = constrained.uuids_of_positions("n1")[1:3]
    assert "status=0" in output.splitlines()
    whole, part, step = seen_in(output)
    assert (whole.visible, whole.uuids) == (SLURMS_NUMBERS, ",".join(mine))
    # Which of the job's GPUs CUDA's 0 is, Slurm does not say.
    assert (part.visible, part.uuids) == (mine[0], mine[0])
    assert (step.visible, step.uuids.split(",")) == ("0", openable(constrained, step))


def test_indices_stay_slurms_own_where_devices_are_constrained(
    constrained: GpuCluster, people: Any
) -> None:
    alice, bob = people
    show = constrained.root / "show"
    script = f"{show} batch\nsrun -n2 --gpus-per-task=1 {show} task\nsrun --gres=none {show} none"
    with first_position_taken(constrained, bob), configured(constrained, export="index"):
        seen = run_job(constrained, script, "--gres=gpu:2", "-n2", user=alice)

    (batch,) = seen["batch"]
    assert (batch.visible, batch.order) == (SLURMS_NUMBERS, "PCI_BUS_ID")
    assert set(batch.minors) == {MINORS[1], MINORS[2]}
    assert [(task.visible, task.order) for task in seen["task"]] == [("0", "PCI_BUS_ID")] * 2
    assert {task.minors for task in seen["task"]} == {(MINORS[1],), (MINORS[2],)}
    assert {task.visible for task in seen["none"]} == {"unset"}


def sent_back(cluster: GpuCluster, job: int) -> str:
    """Wait until the job was requeued and its node is up and idle; returns the job's comment."""
    poll_until(lambda: cluster.slurm.job(job)["Restarts"] == "1")
    cluster.slurm.wait_nodes_idle()
    assert cluster.slurm.wait_job(job, states=("PENDING",))["Restarts"] == "1"
    asked = cluster.slurm.run(["squeue", "--noheader", "--format=%k", f"--jobs={job}"], check=True)
    return asked.stdout.strip()


def test_a_choice_of_our_own_is_refused_where_devices_are_constrained(
    constrained: GpuCluster, people: Any
) -> None:
    alice, _ = people
    with (
        configured(constrained, assignment="canhazgpu"),
        submitted(constrained, "echo started", "--gres=gpu:2", user=alice) as job,
    ):
        comment = sent_back(constrained, job)

        assert comment.startswith("canhazgpu: ")
        assert 'assignment = "canhazgpu" cannot work' in comment
        assert "ConstrainDevices=yes" in comment
        assert 'set it to "slurm" or "auto"' in comment
        assert constrained.held() == {}
        assert "started" not in constrained.slurm.output(job, user=alice)


def test_a_job_is_sent_back_from_a_gpu_that_somebody_uses(
    constrained: GpuCluster, people: Any
) -> None:
    alice, bob = people
    by_position = constrained.uuids_of_positions("n1")
    index = index_by_uuid(constrained)[by_position[0]]
    gpu = constrained.state.node("n1").gpu(index)
    with (
        start_gpu_process(gpu, 8000, user=bob) as rogue,
        submitted(constrained, "echo started", "--gres=gpu:1", user=alice) as job,
    ):
        comment = sent_back(constrained, job)

        assert f"in use by {bob} WITHOUT RESERVATION" in comment
        assert f"PID {rogue.pid} " in comment
        assert f"GPU {index} ({by_position[0]}) on n1" in comment
        assert constrained.held() == {}
        assert "started" not in constrained.slurm.output(job, user=alice)


def test_a_process_on_another_gpu_is_in_nobodys_way(constrained: GpuCluster, people: Any) -> None:
    alice, bob = people
    other = constrained.state.node("n1").gpu(0)
    assert other.uuid != constrained.uuids_of_positions("n1")[0]
    with start_gpu_process(other, 8000, user=bob):
        seen = run_job(constrained, f"{constrained.root}/show batch", "--gres=gpu:1", user=alice)

    assert seen["batch"][0].uuids == constrained.uuids_of_positions("n1")[0]
    assert seen["batch"][0].minors == (MINORS[0],)


@pytest.mark.parametrize("export", ["uuid", "index"])
def test_slurms_choice_leads_to_the_right_gpus_by_their_device_files(
    unconstrained: GpuCluster, people: Any, export: str
) -> None:
    alice, bob = people
    show = unconstrained.root / "show"
    script = f"""
    {show} batch
    srun -n2 --gpus-per-task=1 {show} task
    srun --gres=none {show} none
    sleep 600
    """
    with (
        configured(unconstrained, assignment="slurm", export=export),
        first_position_taken(unconstrained, bob),
        submitted(unconstrained, script, "--gres=gpu:2", "-n2", user=alice) as job,
    ):
        tasks = poll_until(
            lambda: (
                (seen := seen_in(unconstrained.slurm.output(job, user=alice)))
                and len(seen) == 5
                and seen
            )
        )

        mine = unconstrained.uuids_of_positions("n1")[1:3]
        assert [uuid_by_device(unconstrained)[MINORS[position]] for position in (1, 2)] == mine
        indices = [index_by_uuid(unconstrained)[uuid] for uuid in mine]
        assert set(indices) != {1, 2}
        names = mine if export == "uuid" else [str(index) for index in indices]
        order = "unset" if export == "uuid" else "PCI_BUS_ID"
        batch = tasks[0]
        assert (batch.tag, batch.positions) == ("batch", "1,2")
        assert (batch.visible.split(","), batch.order) == (names, order)
        parts = [task for task in tasks if task.tag == "task"]
        assert sorted(task.visible for task in parts) == sorted(names)
        assert sorted(task.uuids for task in parts) == sorted(mine)
        assert {task.order for task in parts} == {order}
        assert [task.visible for task in tasks if task.tag == "none"] == ["unset", "unset"]
        assert_reserved(unconstrained, job, alice, mine)


BUSES = ("C1", "0F", "81", "3B", "20")
"""Of the GPUs by NVML's index; CUDA's own order, the fastest first, is another one again."""


@pytest.fixture
def disordered(unconstrained: GpuCluster) -> Iterator[GpuCluster]:
    gpus = unconstrained.state.node("n1").gpus
    for gpu, bus, speed in zip(gpus, BUSES, (1, 5, 2, 4, 3), strict=True):
        gpu.set("pci_bus_id", f"00000000:{bus}:00.0")
        gpu.set("speed", speed)
    yield unconstrained
    for gpu in gpus:
        gpu.set("pci_bus_id", None)
        gpu.set("speed", None)


def test_indices_lead_cuda_to_the_jobs_gpus(disordered: GpuCluster, people: Any) -> None:
    alice, bob = people
    cuda = f"echo CUDA $CANHAZGPU_GPUS; {disordered.gpu_process()} --seconds 0"
    script = f"{cuda}\nsrun -n2 --gpus-per-task=1 sh -c '{cuda}'"
    with (
        configured(disordered, assignment="slurm", export="index"),
        first_position_taken(disordered, bob),
        submitted(disordered, script, "--gres=gpu:2", "-n2", user=alice) as job,
    ):
        assert disordered.slurm.wait_job(job)["JobState"] == "COMPLETED"
        lines = disordered.slurm.output(job, user=alice).splitlines()

    told = [line.split()[1].split(",") for line in lines if line.startswith("CUDA ")]
    seen = [json.loads(line)["gpus"] for line in lines if line.startswith("{")]
    mine = disordered.uuids_of_positions("n1")[1:3]
    assert sorted(told, key=len)[-1] == mine
    assert sorted(name for names in told for name in names) == sorted([*mine, *mine])
    assert sorted(map(sorted, seen)) == sorted(map(sorted, told)), lines


def test_gpus_of_several_types_are_counted_as_slurm_declares_them(
    make_cluster: Any, people: Any
) -> None:
    alice, _ = people
    types = ("small", "big", "small", "big", "big")
    cluster = prepared(make_cluster(spec(constrain_devices=True, gpu_types=types)))
    uuids = uuid_by_device(cluster)
    script = f"{cluster.root}/show batch\nsleep 600"
    for kind, count in (("small", 1), ("small", 2), ("big", 1), ("big", 3)):
        with submitted(cluster, script, f"--gres=gpu:{kind}:{count}", user=alice) as job:
            task = first_task(cluster, job, alice)
            opened = [uuids[number] for number in task.minors]
            assert len(opened) == count
            assert {types[MINORS.index(number)] for number in task.minors} == {kind}
            assert set(task.uuids.split(",")) == set(opened)
            assert task.visible == ",".join(map(str, range(count)))
            assert_reserved(cluster, job, alice, opened)
        assert_all_free(cluster)
