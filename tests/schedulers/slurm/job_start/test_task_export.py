"""Which words the task prolog gets: by the configuration, the GPUs, and what Slurm does."""

from __future__ import annotations

import pytest

from canhazgpu.config.grant_sections import SlurmConfig
from canhazgpu.gpu.assigned import AssignedGpu
from canhazgpu.schedulers.slurm.job_start.task_export import task_export

GPUS = (AssignedGpu(0, "GPU-a", 0), AssignedGpu(1, "GPU-b", 1))
OTHERS = (AssignedGpu(0, "GPU-b", 1), AssignedGpu(1, "GPU-a", 0))
INSTANCE = (AssignedGpu(0, "MIG-a", 0),)


@pytest.mark.parametrize(
    ("export", "constrained", "gpus", "expected"),
    [
        ("auto", True, GPUS, ["auto", "uuid"]),
        ("auto", False, GPUS, ["uuid"]),
        ("uuid", True, GPUS, ["uuid"]),
        ("index", True, GPUS, ["index"]),
        ("index", False, GPUS, ["index"]),
        ("auto", True, INSTANCE, ["uuid"]),
        ("index", True, INSTANCE, ["uuid"]),
    ],
)
def test_the_style(
    export: str, constrained: bool, gpus: tuple[AssignedGpu, ...], expected: list[str]
) -> None:
    slurm = SlurmConfig(export=export)

    assert task_export(slurm, gpus, (), constrained=constrained) == expected


@pytest.mark.parametrize(
    ("slurms", "expected"),
    [
        ((), ["uuid"]),
        (None, ["slurm=unknown", "uuid"]),
        (GPUS, ["uuid"]),
        (OTHERS, ["slurm=0=GPU-b", "slurm=1=GPU-a", "uuid"]),
    ],
)
def test_slurms_own_uuids_are_told_where_the_job_has_others(
    slurms: tuple[AssignedGpu, ...] | None, expected: list[str]
) -> None:
    assert task_export(SlurmConfig(), GPUS, slurms, constrained=False) == expected


def test_the_sites_variables() -> None:
    slurm = SlurmConfig(export_also=("NVIDIA_VISIBLE_DEVICES",))

    words = task_export(slurm, GPUS, (), constrained=True)

    assert words == ["also=NVIDIA_VISIBLE_DEVICES", "auto", "uuid"]


@pytest.mark.parametrize("export", ["auto", "index", "uuid"])
def test_numbers_that_may_mean_other_gpus_are_not_told(export: str) -> None:
    slurm = SlurmConfig(export=export)

    assert task_export(slurm, GPUS, (), constrained=True, opens_others=True) == ["uuid"]
