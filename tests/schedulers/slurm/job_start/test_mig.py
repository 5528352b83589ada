"""The prolog on a node with MIG instances beside whole GPUs, under either choice of devices."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import fake_nvml

pytestmark = pytest.mark.slow

NODE = "n1"
CAP = "/dev/nvidia-caps/nvidia-cap"
FIRST = 3 + 2 * 15 * 9  # of /dev/nvidia2, which is divided
INSTANCES, WHOLE = (0, 1, 2), (3, 4, 5)
slurms_choice = pytest.mark.parametrize("node", ["slurm"], indirect=True)
our_choice = pytest.mark.parametrize("node", ["canhazgpu"], indirect=True)

# As slurmd starts the prolog, with another directory in the place of /proc/driver.
PROLOG = """
import pathlib, sys
from canhazgpu.probe.nvml import mig_devices
mig_devices.DRIVER_PROC = pathlib.Path(sys.argv[1])
from canhazgpu.prolog.main import main
sys.exit(main())
"""


def capabilities(place: int) -> tuple[str, str]:
    """The files of the GPU instance and of the compute instance of an instance."""
    gpu_instance = FIRST + 9 * (place + 1)
    return f"{CAP}{gpu_instance}", f"{CAP}{gpu_instance + 1}"


def multiple_files(place: int) -> str:
    return "MultipleFiles=" + ",".join(("/dev/nvidia2", *capabilities(place)))


@pytest.fixture(params=["MultipleFiles", "gpu instance", "compute instance"])
def mig_node(request: pytest.FixtureRequest, node: Any) -> Iterator[Any]:
    """Instances at Slurm's positions 0 to 2, and whole GPUs at 3 to 5; a job has one GPU."""
    lines = {
        "MultipleFiles": multiple_files,
        "gpu instance": lambda place: f"File={capabilities(place)[0]}",
        "compute instance": lambda place: f"File={capabilities(place)[1]}",
    }
    gpu = node.state.node(NODE).gpu(1)
    for place in INSTANCES:
        gpu.add_mig(place)
    node.state.node(NODE).write_mig_proc(node.files / "proc")
    gres = [f"Name=gpu Type=1g.10gb {lines[request.param](place)}" for place in INSTANCES]
    gres += ["Name=gpu Type=h100 File=/dev/nvidia[0-1,3]"]
    (node.files / "gres.conf").write_text("\n".join(gres) + "\n")
    with (node.files / "slurm.conf").open("a") as conf:
        conf.write(f"NodeName={NODE} Gres=gpu:1g.10gb:3,gpu:h100:3\n")
    node.slurm()
    yield node


one_form = pytest.mark.parametrize("mig_node", ["MultipleFiles"], indirect=True)


def uuid_at(node: Any, position: int) -> str:
    """The GPU of Slurm's position; NVML's indices run against the device files' numbers."""
    simulated = node.state.node(NODE)
    if position in INSTANCES:
        return simulated.gpu(1).mig(position).uuid  # type: ignore[no-any-return]
    return simulated.gpu({3: 3, 4: 2, 5: 0}[position]).uuid  # type: ignore[no-any-return]


def uuids_at(node: Any, *positions: int) -> set[str]:
    return {uuid_at(node, position) for position in positions}


def run_prolog(node: Any, gpus: str, job: int = 12, **variables: str) -> None:
    environ = node.environ(SLURM_JOB_GPUS=gpus, SLURM_JOB_ID=str(job), **variables)
    done: subprocess.CompletedProcess[str] = node.python(
        "-c", PROLOG, str(node.files / "proc"), environ=environ
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def gpus_of(node: Any, job: int = 12) -> set[str]:
    owners = node.owners_by_gpu().items()
    return {uuid for uuid, owner in owners if owner.startswith(f"job:c1:{job}:")}


def record(node: Any, job: int = 12) -> list[list[str]]:
    """The GPUs in the task prolog's file: position, UUID, index and device file of each."""
    lines = (node.files / "run" / "jobs" / f"{job}.env").read_text().splitlines()
    return [line.split()[1:] for line in lines if line.startswith("gpu ")]


def test_a_job_has_a_gpu_of_its_kind(mig_node: Any) -> None:
    run_prolog(mig_node, "1", job=1)
    run_prolog(mig_node, "3,5", job=2)
    run_prolog(mig_node, "0,2", job=3)
    run_prolog(mig_node, "4", job=4)
    held = {job: gpus_of(mig_node, job) for job in (1, 2, 3, 4)}
    assert [len(held[job]) for job in (1, 2, 3, 4)] == [1, 2, 2, 1]
    assert held[1] | held[3] == uuids_at(mig_node, *INSTANCES)
    assert held[2] | held[4] == uuids_at(mig_node, *WHOLE)
    if mig_node.assignment == "slurm":
        assert held[1] == uuids_at(mig_node, 1)
        assert held[2] == uuids_at(mig_node, 3, 5)
        (gpu,) = record(mig_node, 1)
        assert gpu[:3] == ["1", uuid_at(mig_node, 1), "1"]
        assert gpu[3] in capabilities(1)
    assert mig_node.log() == ""
    assert mig_node.scheduler_orders() == []


def test_a_job_with_gpus_of_both_kinds_has_those_that_slurm_counted(mig_node: Any) -> None:
    run_prolog(mig_node, "1,4")
    assert gpus_of(mig_node) == uuids_at(mig_node, 1, 4)
    assert {(one[0], one[1]) for one in record(mig_node)} == {
        ("1", uuid_at(mig_node, 1)),
        ("4", uuid_at(mig_node, 4)),
    }


@one_form
def test_where_the_drivers_files_are_not_there_instances_are_refused_and_whole_gpus_go_on(
    mig_node: Any,
) -> None:
    (mig_node.files / "proc").rename(mig_node.files / "gone")
    run_prolog(mig_node, "3", job=1)
    assert len(gpus_of(mig_node, 1) & uuids_at(mig_node, *WHOLE)) == 1
    assert mig_node.log() == ""
    run_prolog(mig_node, "0", job=12)
    assert gpus_of(mig_node) == set()
    assert "scontrol requeue 12" in mig_node.scheduler_orders()
    assert "which MIG instance that is cannot be known" in mig_node.log()
    assert "/proc/driver/nvidia-caps/mig-minors" in mig_node.log()


@one_form
def test_an_instance_made_anew_elsewhere_is_not_mistaken_for_the_old_one(mig_node: Any) -> None:
    gpu = mig_node.state.node(NODE).gpu(1)
    gpu.remove_mig()
    gpu.add_mig(0, gpu_instance_id=9)
    mig_node.state.node(NODE).write_mig_proc(mig_node.files / "proc")
    run_prolog(mig_node, "0")
    assert gpus_of(mig_node) == set()
    assert "the driver shows no MIG instance with these device files" in mig_node.log()
    assert "scontrol requeue 12" in mig_node.scheduler_orders()


@one_form
def test_a_gpu_that_is_no_longer_whole_is_refused_by_its_parts(mig_node: Any) -> None:
    for index in (0, 2, 3):
        mig_node.state.node(NODE).gpu(index).add_mig(0)
    mig_node.state.node(NODE).write_mig_proc(mig_node.files / "proc")
    run_prolog(mig_node, "3")
    assert gpus_of(mig_node) == set()
    assert "is divided into the MIG instances 3:0" in mig_node.log()


def taken(node: Any, stack: ExitStack, user: str, *positions: int) -> None:
    """Somebody uses these GPUs without a reservation."""
    simulated = node.state.node(NODE)
    for position in positions:
        gpu = (
            simulated.gpu(1).mig(position)
            if position in INSTANCES
            else simulated.gpu({3: 3, 4: 2, 5: 0}[position])
        )
        stack.enter_context(fake_nvml.start_gpu_process(gpu, 8000, user=user))


@one_form
@our_choice
def test_what_is_free_of_the_other_kind_is_no_choice(
    mig_node: Any, people: tuple[str, str]
) -> None:
    with ExitStack() as stack:
        taken(mig_node, stack, people[1], 0, 2, 3)
        run_prolog(mig_node, "0", job=1)
        assert gpus_of(mig_node, 1) == uuids_at(mig_node, 1)
        taken(mig_node, stack, people[1], 1)
        run_prolog(mig_node, "2", job=12)
        assert gpus_of(mig_node, 12) == set()
        assert mig_node.scheduler_orders()[-1] == "scontrol requeue 12"
        run_prolog(mig_node, "3,4", job=3)
        assert gpus_of(mig_node, 3) == uuids_at(mig_node, 4, 5)


@one_form
@slurms_choice
def test_a_job_is_swapped_to_a_gpu_of_its_kind_alone(
    mig_node: Any, people: tuple[str, str]
) -> None:
    mig_node.configure(slurm={"on_conflict": "swap"})
    with ExitStack() as stack:
        taken(mig_node, stack, people[1], 0, 1)
        run_prolog(mig_node, "0", job=1)
        assert gpus_of(mig_node, 1) == uuids_at(mig_node, 2)
        taken(mig_node, stack, people[1], 2)
        run_prolog(mig_node, "1", job=12)
        assert gpus_of(mig_node, 12) == set()
        assert mig_node.scheduler_orders()[-1] == "scontrol requeue 12"


@one_form
@pytest.mark.parametrize("expected", [{}, {"validation": {"expected_gpus": 4}}])
def test_instances_are_no_missing_gpus_and_hide_none(
    mig_node: Any, expected: dict[str, dict[str, object]]
) -> None:
    mig_node.configure(**expected)
    run_prolog(mig_node, "4", job=1)
    assert mig_node.log_lines() == []
    mig_node.state.node(NODE).gpu(1).add_mig(3)  # one that Slurm does not count
    mig_node.state.node(NODE).gpu(0).remove()  # the last position of Slurm
    run_prolog(mig_node, "3", job=2)
    seen = "3 of 4" if expected else "5 of 6"
    assert mig_node.log_lines() == [f"n1: {seen} GPUs are there: see 'nvidia-smi -L'"]


@one_form
def test_the_node_alone_chooses_by_the_same_rules(mig_node: Any) -> None:
    mig_node.server.stop()
    run_prolog(mig_node, "1", job=1)
    run_prolog(mig_node, "3", job=2)
    assert [one[1] in uuids_at(mig_node, *INSTANCES) for one in record(mig_node, 1)] == [True]
    assert [one[1] in uuids_at(mig_node, *WHOLE) for one in record(mig_node, 2)] == [True]


@one_form
def test_several_types_one_of_which_is_not_understood_are_no_choice(mig_node: Any) -> None:
    gres: Path = mig_node.files / "gres.conf"
    gres.write_text(gres.read_text().replace("nvidia[0-1,3]", "nvidia[0-1:2]"))
    run_prolog(mig_node, "0")
    assert gpus_of(mig_node) == set()
    assert "scontrol requeue 12" in mig_node.scheduler_orders()


def constrain_devices(node: Any) -> None:
    (node.files / "cgroup.conf").write_text("ConstrainDevices=yes\n")
    with (node.files / "slurm.conf").open("a") as conf:
        conf.write("TaskPlugin=task/cgroup\n")


def export_words(node: Any) -> list[str]:
    lines = (node.files / "run" / "jobs" / "12.env").read_text().splitlines()
    words = [line.split()[1] for line in lines if line.startswith("export ")]
    return [word for word in words if not word.startswith("cluster=")]


@slurms_choice
def test_slurms_numbers_stay_only_where_a_job_can_open_no_gpu_that_slurm_does_not_count(
    mig_node: Any,
) -> None:
    constrain_devices(mig_node)
    run_prolog(mig_node, "3")
    denied = "nvidia2" in (mig_node.files / "gres.conf").read_text()  # the divided GPU's file
    assert export_words(mig_node) == (["auto", "uuid"] if denied else ["uuid"])


@slurms_choice
def test_a_gpu_that_gres_conf_leaves_out_makes_slurms_numbers_doubtful(node: Any) -> None:
    (node.files / "gres.conf").write_text("Name=gpu File=/dev/nvidia[0-2]\n")
    constrain_devices(node)
    node.configure(slurm={"export": "index"})
    run_prolog(node, "1")
    assert export_words(node) == ["uuid"]
    node.run("epilog")
    (node.files / "gres.conf").write_text("Name=gpu File=/dev/nvidia[0-3]\n")
    run_prolog(node, "1", SLURM_JOB_RESTART_COUNT="1")
    assert export_words(node) == ["index"]
