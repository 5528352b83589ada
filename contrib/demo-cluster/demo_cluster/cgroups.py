"""Keep one cluster's control groups apart from every other's, and remove them afterwards.

Slurm names its groups after the node (`slurm_n1`), so two clusters with a node `n1` would share them.
With cgroup v1 each cluster is therefore given a mount point of its own, whose entries are links to
directories that only this cluster uses.
"""

from __future__ import annotations

import contextlib
import zlib
from pathlib import Path

from demo_cluster.layout import Layout
from demo_cluster.processes import Process, find

HOST_MOUNT = Path("/sys/fs/cgroup")
CONTROLLERS = ("freezer", "devices", "cpuset", "memory", "cpuacct")
INHERITED_CPUSET_FILES = ("cpuset.cpus", "cpuset.mems")


def plugin() -> str:
    """Return the Slurm plugin for what this host has mounted."""
    return "cgroup/v1" if (HOST_MOUNT / "devices").is_dir() else "cgroup/v2"


def prepare(layout: Layout) -> None:
    pass


def remove(layout: Layout) -> None:
    pass
