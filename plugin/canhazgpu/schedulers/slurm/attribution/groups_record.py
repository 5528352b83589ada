"""The node's record of slurmd's control groups, ``<state_dir>/slurmd-groups.json``.

Hooks write it. Commands of ordinary users read it: they know neither where Slurm's configuration
is nor the name under which slurmd runs.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from canhazgpu.node.identity import boot_id
from canhazgpu.node.state_files import open_regular_file, read_regular_file, write_atomically
from canhazgpu.schedulers.slurm.attribution.job_group import SlurmdGroups

FILE_NAME = "slurmd-groups.json"
CGROUP_NAMESPACE = Path("/proc/self/ns/cgroup")
ROOT = 0


def record_groups(state_dir: Path, groups: SlurmdGroups) -> None:
    """Write the record, if it is not there already. Raises `OSError`."""
    text = json.dumps({"v1": groups.v1, "v2": groups.v2, **_validity()})
    path = state_dir / FILE_NAME
    try:
        unchanged = read_regular_file(path) == text.encode()
    except (OSError, ValueError):
        unchanged = False
    if not unchanged:
        write_atomically(path, text.encode(), 0o644)


def recorded_groups(state_dir: Path) -> SlurmdGroups | None:
    """Return the groups on record; None for none that root or this user wrote since the boot.

    Also None for a record of another cgroup namespace, in which the paths are others.
    """
    try:
        with os.fdopen(open_regular_file(state_dir / FILE_NAME, os.O_RDONLY), "rb") as stream:
            if os.fstat(stream.fileno()).st_uid not in (ROOT, os.geteuid()):
                return None
            record = json.loads(stream.read())
        if any(record[key] != value for key, value in _validity().items()):
            return None
        return SlurmdGroups(
            {str(key): _texts(paths) for key, paths in record["v1"].items()}, _texts(record["v2"])
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _texts(paths: list[str]) -> tuple[str, ...]:
    if not all(isinstance(path, str) and path.startswith("/") for path in paths):
        raise TypeError("a control group is a path")
    return tuple(paths)


def _validity() -> dict[str, str | int | None]:
    try:
        namespace = CGROUP_NAMESPACE.stat().st_ino
    except OSError:
        namespace = None
    return {"boot_id": boot_id(), "cgroup_namespace": namespace}
