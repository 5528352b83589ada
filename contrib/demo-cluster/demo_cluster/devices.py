"""Device files that stand in for GPUs: right numbers, no driver behind them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from demo_cluster.layout import Layout
from demo_cluster.spec import CAPABILITY_MAJOR, GPU_MAJOR, ClusterSpec


def make_devices(spec: ClusterSpec, layout: Layout) -> None:
    """Make `dev/NODE/nvidia<minor>`: opening one gives ENXIO, or EPERM where a cgroup forbids."""
    for node in spec.node_specs():
        for files in spec.gpu_files_of(node):
            for file in files:
                _make_device(layout.devices(node.name) / file)


def _make_device(path: Path) -> None:
    name = path.name.rstrip("0123456789")
    minor = path.name.removeprefix(name)
    major = CAPABILITY_MAJOR if name == "nvidia-cap" else GPU_MAJOR
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(major, int(minor)))
    path.chmod(0o666)
