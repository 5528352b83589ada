"""The order of GPUs that slurmd detects, with Debian's NVML plugin on the simulated driver."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest
from clusters.nvml_plugin import name_library_for_plugin, plugin_directories
from slurm_configurations import find_slurmd

import fake_nvml
from canhazgpu.errors import InputError
from canhazgpu.gpu.scan import GpuReading, MigDeviceNumbers
from canhazgpu.schedulers.slurm.conf.device_mapping import gpus_at_positions
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
    mount --make-rprivate /dev && mkdir -p {dev}/shm && mount --bind /dev/shm {dev}/shm &&
    mount --rbind {dev} /dev &&
    mount --make-rprivate /proc && mount --bind {proc} /proc/driver && exec {slurmd} "$@"' sh "$@"
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


def install_driver(directory: Path) -> fake_nvml.FakeNode:
    """Install the simulated driver, with its library and its files of `/proc/driver`."""
    fake_nvml.install(directory)
    state = fake_nvml.FakeState(directory / "state")
    node = state.add_node("n1", len(MINORS), minors=list(MINORS))
    for gpu, name in zip(node.gpus, NAMES, strict=True):
        gpu.set("name", name)
    name_library_for_plugin(directory)
    (directory / "proc").mkdir()
    return node


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the simulated driver."""
    directory = tmp_path_factory.mktemp("driver")
    install_driver(directory)
    return directory


@dataclass(frozen=True, slots=True)
class DetectingSlurmd:
    """A slurmd with NVML's plugin; `library_path` has the simulated driver."""

    path: str
    plugins: str
    library_path: str

    def gpus(self, conf: Path) -> tuple[GpuDevice, ...]:
        return ask_slurmd(self.path, conf, "n1", library_path=self.library_path)


def detecting_slurmd(
    directory: Path, plugins: str, driver: Path, capabilities: Iterable[int] = ()
) -> DetectingSlurmd:
    """Return a slurmd that sees the devices; `capabilities` are the minors of MIG's files."""
    (directory / "dev" / "nvidia-caps").mkdir(parents=True)
    files = {f"nvidia-caps/nvidia-cap{minor}": (236, minor) for minor in capabilities}
    for name, numbers in {**CHARACTER_DEVICES, **files}.items():
        os.mknod(directory / "dev" / name, stat.S_IFCHR | 0o666, os.makedev(*numbers))
    path = directory / "slurmd"
    path.write_text(
        IN_PRIVATE_DEV.format(slurmd=find_slurmd(), dev=directory / "dev", proc=driver / "proc")
    )
    path.chmod(0o755)
    return DetectingSlurmd(str(path), plugins, str(driver))


@pytest.fixture
def slurmd(tmp_path: Path, plugins: str, driver: Path) -> DetectingSlurmd:
    return detecting_slurmd(tmp_path, plugins, driver)


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


@pytest.mark.parametrize("declared", ["gpu:5", "gpu:1g.10gb:2,gpu:a100:1,gpu:3090:2"])
def test_instances_that_slurmd_detects(tmp_path: Path, plugins: str, declared: str) -> None:
    # Given the second GPU divided into two instances
    driver = tmp_path / "driver"
    node = install_driver(driver)
    divided, minor = node.gpus[1], MINORS[1]
    instances = [divided.add_mig(place) for place in (0, 1)]
    node.write_mig_proc(driver / "proc")
    listed = dict(
        line.split()
        for line in (driver / "proc" / "nvidia-caps" / "mig-minors").read_text().splitlines()
    )
    caps = [
        (int(listed[f"gpu{minor}/gi{gi}/access"]), int(listed[f"gpu{minor}/gi{gi}/ci0/access"]))
        for gi in (1, 2)
    ]
    slurmd = detecting_slurmd(tmp_path, plugins, driver, (one for pair in caps for one in pair))
    gpus = [gpu for gpu in GPUS if gpu.device_number != minor] + [
        GpuReading(
            1, mig.uuid, None, f"{NAMES[1]} MIG 1g.10gb", 0, 9856,
            mig_index=place, parent_uuid="GPU-1", mig_devices=MigDeviceNumbers(minor, *pair),
        )
        for place, (mig, pair) in enumerate(zip(instances, caps, strict=True))
    ]  # fmt: skip

    conf = write_conf(tmp_path, plugins, "AutoDetect=nvml", declared)
    devices = slurmd.gpus(conf)

    # I expect each position to lead to the GPU or the instance whose files slurmd names
    names = {(f"/dev/nvidia{gpu.device_number}",): gpu.uuid for gpu in gpus if not gpu.mig_devices}
    for mig, pair in zip(instances, caps, strict=True):
        files = (f"/dev/nvidia-caps/nvidia-cap{one}" for one in pair)
        names[(f"/dev/nvidia{minor}", *files)] = mig.uuid
    node_conf = read_node_conf(conf, "n1", "host")
    said = SlurmdAnswer(conf_stamps(node_conf), driver_gpus(gpus), None, "1:2", 0.0, devices)
    found = gpus_at_positions(range(5), agreed_devices(node_conf, gpus, said), gpus)
    assert [one.uuid for one in found] == [names[device.files] for device in devices]
    assert {one.uuid for one in found} == {*names.values()}
    with pytest.raises(InputError, match="no answer of slurmd"):
        agreed_devices(node_conf, gpus, None)
