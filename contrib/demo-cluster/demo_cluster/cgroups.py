"""Keep one cluster's control groups apart from every other's, and remove them afterwards.

Slurm names its groups after the node (`slurm_n1`), so two clusters with a node `n1` would share
them. With cgroup v1 each cluster is therefore given a mount point of its own, whose entries are
links to directories that only this cluster uses. With cgroup v2, and where the cluster's
`host_cgroups` asks for it, Slurm's own naming stays.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from pathlib import Path

from demo_cluster.host.processes import Process, find_process, wait_until
from demo_cluster.layout import Layout

HOST_MOUNT = Path("/sys/fs/cgroup")
CONTROLLERS = ("freezer", "devices", "cpuset", "memory", "cpuacct")
CPUSET_FILES = ("cpuset.cpus", "cpuset.mems")
REMOVE_TIMEOUT_S = 5.0


def plugin() -> str:
    """Return the Slurm plugin for what this host has mounted."""
    return "cgroup/v1" if _is_v1() else "cgroup/v2"


def prepare(layout: Layout, *, host_cgroups: bool = False) -> None:
    """Make the mount point, and in each controller the cluster's own group that it leads to.

    With `host_cgroups` it leads to the host's own root groups, as on a host with one Slurm.
    """
    if not _is_v1():
        return
    layout.cgroup_mount.mkdir(mode=0o755, exist_ok=True)
    for controller in CONTROLLERS:
        if not (HOST_MOUNT / controller).is_dir():
            continue
        group = HOST_MOUNT / controller if host_cgroups else cluster_group(layout, controller)
        group.mkdir(exist_ok=True)
        if controller == "cpuset" and not host_cgroups:
            _inherit_cpuset(group)
        link = layout.cgroup_mount / controller
        link.unlink(missing_ok=True)
        link.symlink_to(group)


def processes(layout: Layout) -> list[Process]:
    """Return the processes inside the cluster's groups."""
    pids: set[int] = set()
    for group in _cluster_groups(layout):
        for directory, _, _ in os.walk(group):
            with contextlib.suppress(OSError):
                pids.update(map(int, (Path(directory) / "cgroup.procs").read_text().split()))
    return [process for process in map(find_process, pids) if process is not None]


def remove(layout: Layout) -> None:
    """Remove the cluster's groups; the kernel lets one go a moment after its last process."""
    wait_until(
        lambda: all([_remove_tree(group) for group in _cluster_groups(layout)]), REMOVE_TIMEOUT_S
    )


def cluster_group(layout: Layout, controller: str) -> Path:
    mark = zlib.crc32(os.fsencode(layout.root))
    return HOST_MOUNT / controller / f"demo-cluster-{mark:08x}"


def _cluster_groups(layout: Layout) -> list[Path]:
    groups = [cluster_group(layout, controller) for controller in CONTROLLERS]
    groups += [
        HOST_MOUNT / controller / f"slurm_{node}"
        for controller in CONTROLLERS
        if _leads_to_host(layout, controller)
        for node in layout.node_names()
    ]
    return [group for group in groups if group.is_dir()]


def _leads_to_host(layout: Layout, controller: str) -> bool:
    return (layout.cgroup_mount / controller).resolve() == HOST_MOUNT / controller


def _is_v1() -> bool:
    return (HOST_MOUNT / "devices").is_dir()


def _inherit_cpuset(group: Path) -> None:
    """Copy CPUs and memory nodes from the parent: a cpuset without them takes no process."""
    for name in CPUSET_FILES:
        (group / name).write_text((group.parent / name).read_text())


def _remove_tree(group: Path) -> bool:
    for directory, _, _ in os.walk(group, topdown=False):
        with contextlib.suppress(OSError):
            Path(directory).rmdir()
    return not group.exists()
