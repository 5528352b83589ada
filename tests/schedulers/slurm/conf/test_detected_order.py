"""The order of GPUs that Slurm detects, and what slurmd's own answer decides.

The expected orders were measured with the NVML plugin of 22.05, 24.11 and 26.05 and the one for
``nvidia`` of 26.05, against the simulated driver with these GPUs.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from canhazgpu.errors import InputError
from canhazgpu.gpu.scan import GpuReading
from canhazgpu.schedulers.slurm.conf.gpu_device import GpuDevice
from canhazgpu.schedulers.slurm.conf.node_conf import SlurmNodeConf, read_node_conf
from canhazgpu.schedulers.slurm.conf.slurmd_answer import (
    SlurmdAnswer,
    agreed_devices,
    conf_stamps,
    driver_gpus,
)

A100, RTX = "NVIDIA A100-SXM4-80GB", "NVIDIA GeForce RTX 3090"


def node(*minors: int, names: tuple[str, ...] = ()) -> list[GpuReading]:
    return [
        GpuReading(index, f"GPU-{index}", minor, names[index] if names else A100, 0, 80000)
        for index, minor in enumerate(minors)
    ]


MIXED = node(3, 1, 0, 2, names=(A100, A100, RTX, RTX))
ORDERED = node(0, 1, 2, 3, names=(A100, A100, RTX, RTX))


def conf(directory: Path, gres: str, declared: str = "gpu:4") -> SlurmNodeConf:
    (directory / "slurm.conf").write_text(f"NodeName=n1 Gres={declared}\n")
    (directory / "gres.conf").write_text(gres.replace(";", "\n") + "\n")
    return read_node_conf(directory / "slurm.conf", "n1", "host")


def numbers(devices: tuple[GpuDevice, ...]) -> list[int]:
    return [int(file.removeprefix("/dev/nvidia")) for one in devices for file in one.files]


@pytest.mark.parametrize(
    ("gres", "declared", "gpus", "order"),
    [
        ("AutoDetect=nvml", "gpu:4", MIXED, [3, 1, 0, 2]),
        ("AutoDetect=nvml", "gpu:3090:2,gpu:a100:2", MIXED, [3, 1, 0, 2]),
        ("AutoDetect=nvidia", "gpu:3090:2,gpu:a100:2", MIXED, [0, 1, 2, 3]),
        ("AutoDetect=nvml", "gpu:4", ORDERED, [0, 1, 2, 3]),
        ("AutoDetect=off;Name=gpu File=/dev/nvidia[2,0,1,3]", "gpu:4", MIXED, [2, 0, 1, 3]),
        ("AutoDetect=nvml;Name=gpu File=/dev/nvidia[0-3]", "gpu:4", ORDERED, [0, 1, 2, 3]),
        (
            "AutoDetect=nvml;Name=gpu Type=a100 File=/dev/nvidia[0-1]"
            ";Name=gpu Type=b File=/dev/nvidia[2-3]",
            "gpu:a100:2,gpu:b:2",
            ORDERED[:2] + [replace(gpu, name="B") for gpu in ORDERED[2:]],
            None,  # were a100 not recognised, it would come last
        ),
        ("AutoDetect=nvml;Name=gpu File=/dev/nvidia[0-3]", "gpu:4", MIXED, None),
        ("AutoDetect=nvml;Name=gpu File=/dev/nvidia[0-3]", "gpu:2", ORDERED, [0, 1]),
        ("AutoDetect=nvml", "gpu:2", ORDERED, None),
        ("AutoDetect=nvml", "gpu:4", ORDERED[:3], None),
        ("AutoDetect=nvml", "gpu:a100:3,gpu:3090:1", ORDERED, None),
        ("AutoDetect=rsmi", "gpu:4", ORDERED, None),
        ("NodeName=n1 AutoDetect=nvml;AutoDetect=off", "gpu:4", MIXED, [3, 1, 0, 2]),
    ],
)
def test_without_slurmds_answer_only_an_order_that_cannot_be_another_is_known(
    tmp_path: Path, gres: str, declared: str, gpus: list[GpuReading], order: list[int] | None
) -> None:
    node_conf = conf(tmp_path, gres, declared)
    if order is not None:
        assert numbers(agreed_devices(node_conf, gpus, None)) == order
        return
    with pytest.raises(InputError, match=r"no answer of slurmd for these is on record"):
        agreed_devices(node_conf, gpus, None)


def test_detected_gpus_have_the_types_of_gres(tmp_path: Path) -> None:
    node_conf = conf(tmp_path, "AutoDetect=nvml", "gpu:3090:2,gpu:a100:2")
    found = agreed_devices(node_conf, MIXED, None)
    assert [one.kind for one in found] == ["a100", "a100", "3090", "3090"]


def answer(
    node_conf: SlurmNodeConf, gpus: list[GpuReading], *order: int, fault: str = ""
) -> SlurmdAnswer:
    devices = tuple(GpuDevice("", (f"/dev/nvidia{number}",)) for number in order)
    return SlurmdAnswer(conf_stamps(node_conf), driver_gpus(gpus), "b", "1:2", 0.0, devices, fault)


LISTED = "AutoDetect=nvml;Name=gpu File=/dev/nvidia[0-3]"


def test_slurmds_answer_decides_where_the_files_leave_the_order_open(tmp_path: Path) -> None:
    node_conf = conf(tmp_path, LISTED)
    said = answer(node_conf, MIXED, 3, 1, 0, 2)
    assert numbers(agreed_devices(node_conf, MIXED, said)) == [3, 1, 0, 2]


def test_an_answer_for_other_files_or_other_gpus_does_not_count(tmp_path: Path) -> None:
    node_conf = conf(tmp_path, LISTED)
    said = answer(node_conf, MIXED, 3, 1, 0, 2)
    for stale in (
        replace(said, driver=driver_gpus(ORDERED)),
        replace(said, slurmd=""),
        replace(said, conf={}),
        replace(said, fault="slurmd -G gave no answer"),
        replace(said, devices=said.devices[:3]),
    ):
        with pytest.raises(InputError, match="AutoDetect=off and name all files"):
            agreed_devices(node_conf, MIXED, stale)


def test_where_slurmd_reads_the_files_in_another_way_no_gpu_is_given(tmp_path: Path) -> None:
    node_conf = conf(tmp_path, "Name=gpu File=/dev/nvidia[0-3]")
    assert numbers(agreed_devices(node_conf, MIXED, answer(node_conf, [], 0, 1, 2, 3))) == [
        *range(4)
    ]
    with pytest.raises(InputError, match="slurmd -G and canhazgpu read the GPUs of n1"):
        agreed_devices(node_conf, MIXED, answer(node_conf, [], 0, 1, 3, 2))


def test_an_answer_of_before_a_change_is_no_disagreement(tmp_path: Path) -> None:
    before = answer(conf(tmp_path, "Name=gpu File=/dev/nvidia[0-3]"), [], 0, 1, 2, 3)
    node_conf = conf(tmp_path, "Name=gpu File=/dev/nvidia[3,2,1,0] # turned")
    assert numbers(agreed_devices(node_conf, MIXED, before)) == [3, 2, 1, 0]


def test_an_answer_that_counts_each_file_of_an_instance_is_refused_with_the_way_out(
    tmp_path: Path,
) -> None:
    # As Slurm 22.05 answers where GresTypes= has shard or mps.
    files = ("/dev/nvidia1", "/dev/nvidia-caps/nvidia-cap21", "/dev/nvidia-caps/nvidia-cap22")
    node_conf = conf(tmp_path, f"Name=gpu Type=1g.10gb MultipleFiles={','.join(files)}", "gpu:1")
    whole = replace(answer(node_conf, []), devices=(GpuDevice("1g.10gb", files),))
    assert agreed_devices(node_conf, MIXED, whole)[0].files == files
    apart = replace(whole, devices=tuple(GpuDevice("1g.10gb", (file,)) for file in files))
    with pytest.raises(InputError, match="take shard and mps out of GresTypes="):
        agreed_devices(node_conf, MIXED, apart)
