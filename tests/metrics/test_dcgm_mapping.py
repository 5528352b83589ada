"""The files by which dcgm-exporter learns which jobs hold a GPU."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path

import pytest
from hosts.hook_node import HookNode

from canhazgpu.gpu.scan import GpuReading
from canhazgpu.ledger.local.dcgm_mapping import job_files
from canhazgpu.ledger.values import Claim, Reservation

GPU = GpuReading(0, "GPU-0", 0, "H100", 0, 80_000)
JOB = Claim("job:c:5:0", "slurm", "ann", 1000, job_id="5")


def held(claim: Claim, *others: Reservation) -> Reservation:
    return Reservation("GPU-0", claim, 1.0, co_holders=others)


def test_a_gpus_file_names_each_job_that_shares_it() -> None:
    other = held(replace(JOB, owner="job:c:6:0", job_id="6"))
    assert job_files([GPU], {"GPU-0": held(JOB, other)}) == {"0": "5\n6\n"}


@pytest.mark.parametrize(
    "claim",
    [Claim("run:1", "run", "ann"), replace(JOB, job_id="../x\n7"), replace(JOB, job_id=None)],
)
def test_what_is_no_jobs_number_is_not_written(claim: Claim) -> None:
    assert job_files([GPU], {"GPU-0": held(claim)}) == {"0": ""}


def test_a_divided_gpu_has_no_file() -> None:
    instance = replace(GPU, uuid="MIG-1", parent_uuid="GPU-0", mig_index=0)
    assert job_files([instance], {"MIG-1": held(JOB)}) == {"0": ""}


def test_a_gpu_that_the_driver_has_lost_has_no_number() -> None:
    assert job_files([replace(GPU, index=-1)], {"GPU-0": held(JOB)}) == {}


@pytest.mark.slow
def test_hooks_write_and_remove_the_files(node: HookNode, tmp_path: Path) -> None:
    directory = tmp_path / "mapping"
    node.configure(metrics={"dcgm_mapping_dir": str(directory)})
    node.run("prolog")
    # Slurm's number is that of the device file, which runs against the index.
    assert {one.name: one.read_text() for one in directory.iterdir()} == {"2": "12\n", "3": "12\n"}
    assert stat.S_IMODE((directory / "2").stat().st_mode) == 0o644
    (directory / "0").write_text("99\n")
    (directory / "2").unlink()
    done = node.python("-m", "canhazgpu.epilog.health_check", "--exit-code")
    assert done.returncode == 0
    assert {one.name for one in directory.iterdir()} == {"2", "3"}
    node.run("epilog")
    assert list(directory.iterdir()) == []


@pytest.mark.slow
def test_a_directory_that_cannot_be_written_fails_no_job(node: HookNode, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    node.configure(metrics={"dcgm_mapping_dir": str(tmp_path / "file" / "mapping")})
    node.run("prolog")
    assert len(node.reservations()) == 2
