"""The order of GPUs that slurmd detects, with Debian's NVML plugin on the simulated driver."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

import pytest
from clusters.nvml_plugin import name_library_for_plugin, plugin_directories
from slurm_configurations import find_slurmd

import fake_nvml
from canhazgpu.gpu.scan import GpuReading
from canhazgpu.schedulers.slurm.conf.gpu_device import GpuDevice
from canhazgpu.schedulers.slurm.conf.node_conf import read_node_conf
from canhazgpu.schedulers.slurm.conf.slurmd_answer import (
    SlurmdAnswer,
    agreed_devices,
    conf_stamps,
    driver_gpus,
)
from canhazgpu.schedulers.slurm.control.slurmd_gres import ask_slurmd

MINORS = (3, 1, 0, 2)
NAMES = ("NVIDIA A100-SXM4-80GB",) * 2 + ("NVIDIA GeForce RTX 3090",) * 2
GPUS = [
    GpuReading(index, f"GPU-{index}", minor, name, 0, 80000)
    for index, (minor, name) in enumerate(zip(MINORS, NAMES, strict=True))
]
ALL_FILES = "Name=gpu Type=3090 File=/dev/nvidia[0,2]\nName=gpu Type=a100 File=/dev/nvidia[1,3]"

pytestmark = [pytest.mark.slurm, pytest.mark.release, pytest.mark.may_skip]

IN_PRIVATE_DEV = """#!/bin/sh
# slurmd with the device files of the simulated GPUs, in a /dev that nobody else sees.
[ "$1" = -G ] || exec {slurmd} "$@"
exec unshare --mount --propagation unchanged sh -c '
    mount --make-rprivate /dev && mount --bind {dev} /dev && exec {slurmd} "$@"' sh "$@"
"""
CHARACTER_DEVICES = {
    "null": (1, 3),
    "zero": (1, 5),
    "random": (1, 8),
    "urandom": (1, 9),
    **{f"nvidia{minor}": (195, minor) for minor in MINORS},
}


@pytest.fixture(scope="module")
def plugins() -> str:
    """The directories of plugins, with NVML's."""
    find_slurmd()
    return plugin_directories()


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the simulated driver's library."""
    directory = tmp_path_factory.mktemp("driver")
    fake_nvml.install(directory)
    state = fake_nvml.FakeState(directory / "state")
    node = state.add_node("n1", len(MINORS), minors=list(MINORS))
    for gpu, name in zip(node.gpus, NAMES, strict=True):
        (Path(gpu.path) / "name").write_text(f"{name}\n")
    name_library_for_plugin(directory)
    return directory


@dataclass(frozen=True, slots=True)
class DetectingSlurmd:
    """A slurmd with NVML's plugin; `library_path` has the simulated driver."""

    path: str
    plugins: str
    library_path: str

    def gpus(self, conf: Path) -> tuple[GpuDevice, ...]:
        return ask_slurmd(self.path, conf, "n1", library_path=self.library_path)


@pytest.fixture
def slurmd(tmp_path: Path, plugins: str, driver: Path) -> DetectingSlurmd:
    (tmp_path / "dev").mkdir()
    for name, numbers in CHARACTER_DEVICES.items():
        os.mknod(tmp_path / "dev" / name, stat.S_IFCHR | 0o666, os.makedev(*numbers))
    path = tmp_path / "slurmd"
    path.write_text(IN_PRIVATE_DEV.format(slurmd=find_slurmd(), dev=tmp_path / "dev"))
    path.chmod(0o755)
    return DetectingSlurmd(str(path), plugins, str(driver))


def write_conf(directory: Path, plugins: str, gres: str, declared: str) -> Path:
    conf = directory / "conf" / "slurm.conf"
    conf.parent.mkdir()
    conf.write_text(
        f"ClusterName=c\nSlurmctldHost=localhost\nGresTypes=gpu\nPluginDir={plugins}\n"
        f"NodeName=n1 CPUs=1 Gres={declared}\n"
    )
    conf.with_name("gres.conf").write_text(f"{gres}\n")
    return conf


def numbers(devices: tuple[GpuDevice, ...]) -> list[int]:
    return [int(file.removeprefix("/dev/nvidia")) for one in devices for file in one.files]


@pytest.mark.parametrize(
    ("gres", "declared", "order", "is_known"),
    [
        ("AutoDetect=nvml", "gpu:4", [3, 1, 0, 2], True),
        ("AutoDetect=nvml", "gpu:3090:2,gpu:a100:2", [3, 1, 0, 2], True),
        ("AutoDetect=nvml", "gpu:2", [1, 0], False),
        (f"AutoDetect=nvml\n{ALL_FILES}", "gpu:3090:2,gpu:a100:2", [3, 1, 0, 2], False),
        (
            f"AutoDetect=nvml\n{ALL_FILES.replace('a100', 'tesla')}",
            "gpu:tesla:2,gpu:3090:2",
            [0, 2, 1, 3],
            False,
        ),
        ("AutoDetect=nvml\nName=gpu File=/dev/nvidia[0-3]", "gpu:4", [3, 1, 0, 2], False),
        (f"AutoDetect=off\n{ALL_FILES}", "gpu:a100:2,gpu:3090:2", [1, 3, 0, 2], True),
    ],
)
def test_the_order_of_detected_gpus(
    tmp_path: Path,
    slurmd: DetectingSlurmd,
    gres: str,
    declared: str,
    order: list[int],
    is_known: bool,
) -> None:
    conf = write_conf(tmp_path, slurmd.plugins, gres, declared)
    devices = slurmd.gpus(conf)
    assert numbers(devices) == order

    node_conf = read_node_conf(conf, "n1", "host")
    said = SlurmdAnswer(conf_stamps(node_conf), driver_gpus(GPUS), None, "1:2", 0.0, devices)
    assert numbers(agreed_devices(node_conf, GPUS, said)) == order
    if is_known:
        assert numbers(agreed_devices(node_conf, GPUS, None)) == order
