"""Configurations of Slurm with device files that exist, to compare our reading with slurmd's."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from canhazgpu.errors import CanhazgpuError, SchedulerError
from canhazgpu.schedulers.slurm.conf.gpu_device import GpuDevice
from canhazgpu.schedulers.slurm.conf.node_conf import read_node_conf
from canhazgpu.schedulers.slurm.control.slurmd_gres import ask_slurmd
from canhazgpu.schedulers.slurm.control.slurmd_output import parse_slurm_version

GPU_FILES = 10
CAPABILITIES = (
    *range(32),
    *(337, 346, 355, 364, 373, 382, 391, 472, 481, 490, 508, 517, 526, 535),
)
NVIDIA_MAJOR, CAPABILITIES_MAJOR = 195, 240
MISSING_FILE_TIMEOUT_S = 3.0
"""slurmd waits 20 s for a missing device file before it gives up."""

REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Configuration:
    """A directory with ``slurm.conf``, and the GPUs that ``gpus.txt`` expects of a node.

    `expected` is None where slurmd does not start.
    """

    directory: Path
    node: str
    expected: tuple[str, ...] | None


def load_configuration(source: Path, target: Path) -> Configuration:
    """Copy a configuration to `target`, with the device files below it instead of ``/dev``."""
    shutil.copytree(source, target)
    make_device_files(target / "dev")
    for path in target.rglob("*.conf"):
        path.write_bytes(path.read_bytes().replace(b"/dev/", os.fsencode(target / "dev") + b"/"))
    first, *lines = (source / "gpus.txt").read_text().splitlines()
    expected = None if lines == [REFUSED] else tuple(lines)
    return Configuration(target, first.removeprefix("node "), expected)


def make_device_files(directory: Path) -> None:
    """Make devices with the names of GPUs' device files: slurmd wants them to exist.

    Without root's rights they are plain files, which suffice to read a configuration.
    """
    (directory / "nvidia-caps").mkdir(parents=True)
    for number in range(GPU_FILES):
        _make_device(directory / f"nvidia{number}", os.makedev(NVIDIA_MAJOR, number))
    for number in CAPABILITIES:
        path = directory / "nvidia-caps" / f"nvidia-cap{number}"
        _make_device(path, os.makedev(CAPABILITIES_MAJOR, number))


def _make_device(path: Path, number: int) -> None:
    try:
        os.mknod(path, stat.S_IFCHR | 0o600, number)
    except PermissionError:
        path.touch()


def our_reading(found: Configuration) -> tuple[str, ...] | None:
    """Return the GPUs as canhazgpu reads them, None if it refuses to."""
    try:
        node_conf = read_node_conf(found.directory / "slurm.conf", found.node, "host")
        return _described(node_conf.gpu_devices or (), found.directory)
    except CanhazgpuError:
        return None


def slurmds_reading(found: Configuration) -> tuple[str, ...] | None:
    """Return the GPUs as the slurmd at hand reads them, None if it does not start."""
    limit = {} if found.expected is not None else {"timeout_s": MISSING_FILE_TIMEOUT_S}
    try:
        devices = ask_slurmd(find_slurmd(), found.directory / "slurm.conf", found.node, **limit)
    except SchedulerError:
        return None
    return _described(devices, found.directory)


def _described(devices: Sequence[GpuDevice], directory: Path) -> tuple[str, ...]:
    return tuple(
        f"{one.kind or '-'} {','.join(one.files)}".replace(f"{directory}/dev", "/dev")
        for one in devices
    )


def find_slurmd() -> str:
    """Return the path of slurmd; without one the test is skipped, and fails in CI."""
    if found := shutil.which("slurmd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"):
        return found
    if os.environ.get("CI"):
        pytest.fail("slurmd is not installed")
    pytest.skip("slurmd is not installed")


def slurm_release() -> tuple[int, int]:
    """Return the release of the slurmd at hand, such as (24, 11)."""
    said = subprocess.run([find_slurmd(), "-V"], capture_output=True, text=True, check=True).stdout
    found = parse_slurm_version(said)
    assert found is not None, said
    return found
