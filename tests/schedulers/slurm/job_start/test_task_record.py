"""What a job's prolog tells its tasks: CUDA's indices, Slurm's own names, the site's variables."""

from __future__ import annotations

import pytest
from hosts.hook_node import JOB_ID, HookNode

pytestmark = pytest.mark.slow

BUSES = ("C1", "0F", "81", "3B")
BY_BUS = (3, 0, 2, 1)
"""CUDA's index of the GPU at each of NVML's indices, on the buses above."""


@pytest.fixture
def disordered(node: HookNode) -> HookNode:
    """NVML's order is not the bus's."""
    for gpu, bus in zip(node.state.node("n1").gpus, BUSES, strict=True):
        gpu.set("pci_bus_id", f"00000000:{bus}:00.0")
    return node


def record(node: HookNode) -> list[list[str]]:
    path = node.files / "run" / "jobs" / f"{JOB_ID}.env"
    return [line.split() for line in path.read_text().splitlines()]


def indices(node: HookNode) -> dict[str, str]:
    return {words[2]: words[3] for words in record(node) if words[0] == "gpu"}


@pytest.mark.parametrize("lost", [False, True])
def test_indices_are_cudas(disordered: HookNode, lost: bool) -> None:
    node = disordered
    node.configure(slurm={"export": "index"})
    expected = dict(zip(node.all_uuids(), BY_BUS, strict=True))
    if lost:
        node.state.node("n1").inject("nvmlDeviceGetHandleByIndex", return_=15, gpu=1)
        expected = {uuid: index - 1 for uuid, index in expected.items()}

    node.run("prolog")

    assert len(indices(node)) == 2
    assert set(indices(node).items()) <= {(uuid, str(one)) for uuid, one in expected.items()}


def test_a_job_is_sent_back_where_its_indices_are_not_certain(disordered: HookNode) -> None:
    node = disordered
    node.configure(slurm={"export": "index"})
    node.state.node("n1").inject("nvmlDeviceGetPciInfo", return_=3, gpu=0)
    node.slurm()

    node.run("prolog")

    assert f"scontrol requeue {JOB_ID}" in node.scheduler_orders()
    assert 'slurm.export = "index", but CUDA\'s index of GPU ' in node.log()
    assert node.owners_by_gpu() == {}
    assert not (node.files / "run" / "jobs" / f"{JOB_ID}.env").exists()


def test_other_jobs_need_no_index(disordered: HookNode) -> None:
    disordered.state.node("n1").inject("nvmlDeviceGetPciInfo", return_=3, gpu=0)

    disordered.run("prolog")

    assert len(disordered.reservations()) == 2
    assert ["export", "uuid"] in record(disordered)


def test_a_job_that_starts_in_spite_of_it_exports_no_index(disordered: HookNode) -> None:
    node = disordered
    node.configure(slurm={"export": "index", "on_conflict": "warn"})
    node.state.node("n1").inject("nvmlDeviceGetPciInfo", return_=3, gpu=0)
    node.slurm()

    node.run("prolog")

    path = node.files / "run" / "jobs" / f"{JOB_ID}.env"
    assert not path.exists() or set(indices(node).values()) == {"-"}


def test_slurms_names_of_its_own_gpus_are_told_where_canhazgpu_picks_others(
    node: HookNode,
) -> None:
    node.reserve(0)
    node.slurm()
    node.configure(slurm={"on_conflict": "swap,requeue"})

    node.run("prolog")

    told = [words[1] for words in record(node) if words[0] == "export"]
    slurms = [f"slurm={place}={node.uuid_of_position(place)}" for place in (0, 1)]
    assert told == ["cluster=c1", *slurms, "uuid"]
    assert node.uuid_of_position(0) not in indices(node)


def test_the_sites_variables_are_told(node: HookNode) -> None:
    node.configure(slurm={"export_also": ["NVIDIA_VISIBLE_DEVICES"]})

    node.run("prolog")

    assert ["export", "also=NVIDIA_VISIBLE_DEVICES"] in record(node)
