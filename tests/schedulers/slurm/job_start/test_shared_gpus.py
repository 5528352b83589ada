"""A prolog on a node whose GPUs can be shared: what it knows of a job's share, and does with it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

import fake_nvml
from canhazgpu.ledger.values import Share

pytestmark = pytest.mark.slow

SHARD = "     Nodes=n1 CPU_IDs=0 Mem=0 GRES={}"
BOTH = pytest.mark.parametrize("node", ["slurm", "canhazgpu"], indirect=True)


@pytest.fixture
def shares(node: Any) -> Any:
    """The node with shard in Gres=, and a controller that tells each job's GRES."""
    declare(node, "gpu:4,shard:16")
    return node


def declare(node: Any, gres: str) -> None:
    (node.files / "slurm.conf").write_text(
        f"SlurmdLogFile={node.files}/slurmd.log\nGresTypes=gpu,shard,mps\nNodeName=n1 Gres={gres}\n"
    )


def answer(node: Any, gres: str) -> None:
    running = "for job in 12 13 14; do echo $job $job RUNNING; done"
    node.slurm(show=f"echo '{SHARD.format(gres)}'", squeue=running)


def start(node: Any, number: int, gpus: str = "0", **more: str) -> None:
    node.run(
        "prolog",
        SLURM_JOB_ID=str(number),
        SLURM_JOB_GPUS=gpus,
        SLURM_JOB_UID=str(1000 + number),
        SLURM_JOB_USER=f"u{number}",
        **more,
    )


def holders(node: Any, place: int = 0) -> list[str]:
    held = node.view().reservations.get(node.gpu(place).uuid)
    return [one.claim.job_id for one in held.holders] if held else []


def share(node: Any, place: int = 0) -> Share | None:
    return node.view().reservations[node.gpu(place).uuid].claim.share


@pytest.mark.parametrize("gres", ["shard:1(IDX:0)", "shard:1(1/4,0/4,0/4,0/4)"])
def test_jobs_with_shards_share_the_gpu_that_slurm_counted(shares: Any, gres: str) -> None:
    answer(shares, gres)
    start(shares, 12)
    start(shares, 13)
    assert holders(shares) == ["12", "13"]
    assert share(shares) == Share("shard", 1, 4)
    assert (shares.files / "run" / "jobs" / "13.env").exists()
    shares.run("epilog", SLURM_JOB_ID="12", SLURM_JOB_GPUS="0")
    assert holders(shares) == ["13"]
    shares.run("epilog", SLURM_JOB_ID="13", SLURM_JOB_GPUS="0")
    assert holders(shares) == []
    assert shares.log() == ""


def test_a_job_of_whole_gpus_on_such_a_node_holds_them_alone(shares: Any) -> None:
    answer(shares, "gpu:2(IDX:0-1)")
    start(shares, 12, "0,1")
    assert [one.claim.share for one in shares.reservations()] == [None, None]
    assert shares.scheduler_orders() == ["scontrol show job -d 12"]


@pytest.mark.parametrize("address", ["12_3", "12+0"])
def test_a_job_that_gives_its_number_to_others_is_asked_for_by_its_own_address(
    shares: Any, address: str
) -> None:
    own, other = SHARD.format("shard:2(2/4)"), SHARD.format("gpu:1(IDX:1)")
    one = f"echo 'JobId=12 JobName=a'; echo '{own}'"
    rest = f"echo 'JobId=13 JobName=a'; echo '{other}'"
    shares.slurm(
        show=f"{one}; if [ $4 != {address} ]; then {rest}; fi",
        squeue=f"echo '13 12_4 RUNNING'; echo '12 {address} RUNNING'",
    )
    start(shares, 12)
    assert share(shares) == Share("shard", 2, 4)


@pytest.mark.parametrize(
    ("show", "why"),
    [
        ("exit 1", "scontrol show failed"),
        ("echo", "0 times instead of once"),
        ("echo '     Nodes=n1 CPU_IDs=0 Mem=0 GRES=gpu:1,shard:1'", "in jobs of their own"),
        (
            "echo '     Nodes=n1 CPU_IDs=0 Mem=0 GRES=shard:1'; "
            "echo '     Nodes=n1 CPU_IDs=0 Mem=0 GRES=gpu:1'",
            "2 times instead of once",
        ),
    ],
)
def test_a_share_that_cannot_be_known_is_not_guessed(shares: Any, show: str, why: str) -> None:
    shares.slurm(show=show)
    start(shares, 12)
    assert shares.reservations() == []
    assert any(line.startswith("scontrol requeue") for line in shares.scheduler_orders())
    assert why in shares.log()


def test_a_share_of_mps_is_told_by_the_environment(node: Any) -> None:
    declare(node, "gpu:4,mps:400")
    node.slurm()
    for number in (12, 13):
        start(node, number, CUDA_MPS_ACTIVE_THREAD_PERCENTAGE="50")
    assert holders(node) == ["12", "13"]
    assert share(node) == Share("mps", 50, 100)
    assert not node.ran_slurm_commands()


@pytest.mark.parametrize("percentage", ["50", "x", "200", ""])
def test_a_node_without_mps_heeds_no_percentage(node: Any, percentage: str) -> None:
    node.slurm()
    start(node, 12, "0,1", CUDA_MPS_ACTIVE_THREAD_PERCENTAGE=percentage)
    assert [one.claim.share for one in node.reservations()] == [None, None]
    assert not node.ran_slurm_commands()


def test_use_by_those_who_share_is_no_conflict_and_anothers_is(
    shares: Any, people: tuple[str, str], ann: dict[str, str]
) -> None:
    answer(shares, "shard:1(IDX:0)")
    shares.run("prolog", **{**ann, "SLURM_JOB_ID": "12", "SLURM_JOB_GPUS": "0"})
    with fake_nvml.start_gpu_process(shares.gpu(0), 3000, user=people[0]):
        start(shares, 13)
        assert holders(shares) == ["12", "13"]
        with fake_nvml.start_gpu_process(shares.gpu(0), 3000, user=people[1]):
            start(shares, 14)
            assert holders(shares) == ["12", "13"]
            assert f"is in use by {people[1]} WITHOUT RESERVATION" in shares.log()
        # Another's use does not end with a job of those who share.
        shares.run("epilog", SLURM_JOB_ID="13", SLURM_JOB_GPUS="0")
        assert holders(shares) == ["12"]
        assert shares.view().quarantines == {}


def test_memory_of_nobody_is_left_by_the_last_of_those_who_share(shares: Any) -> None:
    answer(shares, "shard:1(IDX:0)")
    shares.configure(epilog={"settle_s": 0.1})
    start(shares, 12)
    start(shares, 13)
    shares.gpu(0).override_used(5000)
    shares.run("epilog", SLURM_JOB_ID="12", SLURM_JOB_GPUS="0")
    assert shares.view().quarantines == {}
    shares.run("epilog", SLURM_JOB_ID="13", SLURM_JOB_GPUS="0")
    assert shares.view().quarantines.keys() == {shares.gpu(0).uuid}


def test_a_share_is_not_swapped(shares: Any) -> None:
    answer(shares, "shard:1(IDX:0)")
    shares.configure(slurm={"on_conflict": "swap,requeue"})
    shares.reserve(0)
    start(shares, 12)
    assert holders(shares) == [None]
    assert "scontrol requeue 12" in shares.scheduler_orders()


@pytest.mark.parametrize("gres", ["gpu:4,mps:400", "gpu:4"])
def test_exclusive_process_is_healthy_where_there_is_mps(node: Any, gres: str) -> None:
    declare(node, gres)
    node.slurm()
    node.gpu(0).set_health(compute_mode=3)
    start(node, 12, "0")
    has_mps = "mps" in gres
    assert (node.gpu(0).uuid in node.view().quarantines) is not has_mps


@contextmanager
def mps_server(node: Any, directory: Path, uid: int) -> Iterator[None]:
    """NVIDIA's MPS server by name and file, with the memory of clients on the first GPU."""
    program = directory / "nvidia-cuda-mps-server"
    shutil.copy(shutil.which("sleep") or "/bin/sleep", program)
    with subprocess.Popen([program, "infinity"], user=uid) as started:
        try:
            fake_nvml.Process(started).occupy(node.gpu(0), 3000)
            yield
        finally:
            started.kill()


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory in which everybody may run programs."""
    with TemporaryDirectory(prefix="chg-mps-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        yield directory


@pytest.mark.parametrize("uid", [0, 1012, 1999])
def test_the_mps_server_is_no_obstacle_unless_a_stranger_runs_it(
    node: Any, open_directory: Path, uid: int
) -> None:
    declare(node, "gpu:4,mps:400")
    node.slurm(squeue="for job in 12 13; do echo $job $job RUNNING; done")
    with mps_server(node, open_directory, uid):
        start(node, 12, CUDA_MPS_ACTIVE_THREAD_PERCENTAGE="50")
        assert holders(node) == ([] if uid == 1999 else ["12"])
        start(node, 13, CUDA_MPS_ACTIVE_THREAD_PERCENTAGE="50")
        assert holders(node) == ([] if uid == 1999 else ["12", "13"])
