"""Device files that stand in for GPUs: right numbers, no driver behind them."""

from __future__ import annotations

import os
import stat

from demo_cluster.layout import Layout
from demo_cluster.spec import GPU_MAJOR, ClusterSpec


def make_devices(spec: ClusterSpec, layout: Layout) -> None:
    """Make `dev/NODE/nvidia<minor>`: opening one gives ENXIO, or EPERM where a cgroup forbids."""
    for node in spec.node_specs():
        layout.devices(node.name).mkdir(mode=0o755, exist_ok=True)
        for minor in node.minors:
            path = layout.device(node.name, minor)
            path.unlink(missing_ok=True)
            os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(GPU_MAJOR, minor))
            path.chmod(0o666)
