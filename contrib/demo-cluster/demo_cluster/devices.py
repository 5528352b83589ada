"""Device files that stand in for GPUs: right numbers, no driver behind them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from demo_cluster.layout import Layout
from demo_cluster.spec import CAPABILITY_MAJOR, GPU_MAJOR, ClusterSpec

STANDARD_MINORS = {"null": 3, "zero": 5, "full": 7, "random": 8, "urandom": 9}
"""Of the memory devices, without which no program goes far."""
MEMORY_MAJOR = 1


def make_devices(spec: ClusterSpec, layout: Layout) -> None:
    """Make `dev/NODE/nvidia<minor>`: opening one gives ENXIO, or EPERM where a cgroup forbids."""
    for node in spec.node_specs():
        for files in spec.gpu_files_of(node):
            for file in files:
                _make_gpu_device(layout.devices(node.name) / file)
        if spec.shows_devices:
            _make_standard_devices(layout.devices(node.name))


def _make_standard_devices(directory: Path) -> None:
    for name, minor in STANDARD_MINORS.items():
        _make_device(directory / name, MEMORY_MAJOR, minor)
    (directory / "fd").unlink(missing_ok=True)
    (directory / "fd").symlink_to("/proc/self/fd")
    (directory / "shm").mkdir(exist_ok=True)
    (directory / "shm").chmod(0o1777)


def _make_gpu_device(path: Path) -> None:
    name = path.name.rstrip("0123456789")
    minor = path.name.removeprefix(name)
    _make_device(path, CAPABILITY_MAJOR if name == "nvidia-cap" else GPU_MAJOR, int(minor))


def _make_device(path: Path, major: int, minor: int) -> None:
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(major, minor))
    path.chmod(0o666)
