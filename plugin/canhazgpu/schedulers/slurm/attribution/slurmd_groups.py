"""Find the control groups below which slurmd makes those of its jobs.

They follow from what root alone decides, as slurmd itself finds them (cgroup_v1.c, cgroup_v2.c):
the mount point in ``cgroup.conf``, where that lies in the hierarchy (mountinfo), the group of
process 1, and the node's name. In a container they lie below the container's group.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.schedulers.slurm.attribution.job_group import SlurmdGroups
from canhazgpu.schedulers.slurm.conf.conf_files import ConfFiles
from canhazgpu.schedulers.slurm.conf.parser import ConfPairs

DEFAULT_MOUNT_POINT = "/sys/fs/cgroup"
DEFAULT_SLICE = "system.slice"
V1_CONTROLLERS = ("freezer", "devices", "memory", "cpuset", "cpuacct", "cpu")
"""The hierarchies that Slurm uses. Others, such as name=systemd, have parts that users own."""

_ESCAPED = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class CgroupMount:
    """One mount of a control group file system: `root` is its group at `mount_point`."""

    root: str
    mount_point: str
    is_v2: bool


def find_slurmd_groups(conf: Path, node: str, proc: Path = Path("/proc")) -> SlurmdGroups:
    """Return slurmd's groups by `conf` (slurm.conf) and the view of this process.

    Raises `ConfigError` for a ``cgroup.conf`` that cannot be read. A Slurm that runs several nodes
    on a host (MULTIPLE_SLURMD, as Debian's does) has the node's name in the paths.
    """
    settings = _cgroup_conf(conf)
    mount_point = _mount_point(settings)
    mounts = parse_cgroup_mounts(_read(proc / "self/mountinfo"))
    return SlurmdGroups(
        v1=_v1_groups(mounts, mount_point, node),
        v2=_v2_scopes(
            mounts,
            mount_point,
            settings.get("cgroupslice", DEFAULT_SLICE),
            node,
            _read(proc / "1/cgroup"),
        ),
    )


def cgroup_mount_point(conf: Path) -> str:
    """Return the directory below which Slurm finds the control groups; raises `ConfigError`."""
    return _mount_point(_cgroup_conf(conf))


def _cgroup_conf(conf: Path) -> ConfPairs:
    settings: ConfPairs = {}
    for line in ConfFiles(conf.parent).lines(conf.with_name("cgroup.conf")):
        settings |= line.pairs
    return settings


def _mount_point(settings: ConfPairs) -> str:
    return settings.get("cgroupmountpoint", DEFAULT_MOUNT_POINT).rstrip("/")


def parse_cgroup_mounts(mountinfo: str) -> tuple[CgroupMount, ...]:
    """Return the mounts of control groups in the text of /proc/PID/mountinfo."""
    found = []
    for line in mountinfo.splitlines():
        words, _, rest = line.partition(" - ")
        fields, kind = words.split(), rest.partition(" ")[0]
        if len(fields) > 4 and kind in ("cgroup", "cgroup2"):
            found.append(
                CgroupMount(_unescaped(fields[3]), _unescaped(fields[4]), kind == "cgroup2")
            )
    return tuple(found)


def group_at(path: str, mounts: tuple[CgroupMount, ...]) -> str | None:
    """Return the group that a directory without symbolic links is, None if it is none."""
    # Of mounts on the same point the last one is seen.
    for mount in sorted(reversed(mounts), key=lambda one: -len(one.mount_point)):
        above = mount.mount_point.rstrip("/") + "/"
        if f"{path}/".startswith(above):
            return _joined(mount.root, path[len(above) :])
    return None


def directory_of(group: str, mounts: tuple[CgroupMount, ...]) -> Path | None:
    """Return the directory of a group of cgroup v2, None if it is not mounted here."""
    for mount in mounts:
        root = mount.root.rstrip("/")
        if mount.is_v2 and group.startswith(f"{root}/"):
            return Path(f"{mount.mount_point}{group.removeprefix(root)}")
    return None


def _v1_groups(
    mounts: tuple[CgroupMount, ...], mount_point: str, node: str
) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    v1 = tuple(mount for mount in mounts if not mount.is_v2)
    for controller in V1_CONTROLLERS:
        group = group_at(os.path.realpath(f"{mount_point}/{controller}"), v1)
        if group is not None:
            found[controller] = (_joined(group, "slurm"), _joined(group, f"slurm_{node}"))
    return found


def _v2_scopes(
    mounts: tuple[CgroupMount, ...], mount_point: str, slice_name: str, node: str, init: str
) -> tuple[str, ...]:
    v2 = [mount for mount in mounts if mount.is_v2 and mount.mount_point == mount_point]
    root = v2[0].root if v2 else "/"
    places = dict.fromkeys((root, *_group_of_init(init, root)))
    return tuple(
        _joined(_joined(place, below), f"{prefix}slurmstepd.scope")
        for place in places
        for below in dict.fromkeys((slice_name, _systemd_path(slice_name)))
        for prefix in ("", f"{node}_")
    )


def _group_of_init(init: str, root: str) -> Iterator[str]:
    """Yield the parent of process 1's group: the hierarchy's root, or the container's group."""
    root = root.rstrip("/")
    for line in init.splitlines():
        group = line.removeprefix("0::")
        if line.startswith("0::/") and group.startswith(f"{root}/") and ".." not in group:
            yield str(PurePosixPath(group).parent)


def _systemd_path(slice_name: str) -> str:
    """Return where systemd puts a slice: ``a-b.slice`` is in ``a.slice``."""
    parts = slice_name.removesuffix(".slice").split("-")
    return "/".join("-".join(parts[: end + 1]) + ".slice" for end in range(len(parts)))


def _joined(group: str, below: str) -> str:
    return f"{group.rstrip('/')}/{below}" if below else group


def _unescaped(text: str) -> str:
    return _ESCAPED.sub(lambda match: chr(int(match[1], 8)), text)


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""
