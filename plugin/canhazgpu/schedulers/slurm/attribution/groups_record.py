"""The node's record of slurmd's control groups, ``<state_dir>/slurmd-groups.json``.

Hooks write it, with the path of their slurm.conf, which the node's agent reads. Commands of
ordinary users read the groups: they know neither where Slurm's configuration is nor the name under
which slurmd runs.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from canhazgpu.node.identity import boot_id
from canhazgpu.node.state_files import open_regular_file, read_regular_file, write_atomically
from canhazgpu.schedulers.slurm.attribution.job_group import SlurmdGroups

FILE_NAME = "slurmd-groups.json"
CGROUP_NAMESPACE = Path("/proc/self/ns/cgroup")
ROOT = 0
RECORD_ERRORS = (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError)


def record_groups(state_dir: Path, groups: SlurmdGroups, conf: Path) -> None:
    """Write the record, if it is not there already; `conf` is slurm.conf. Raises `OSError`."""
    text = json.dumps({"v1": groups.v1, "v2": groups.v2, "conf": str(conf), **_validity()})
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
        record = _valid_record(state_dir)
        return SlurmdGroups(
            {str(key): _texts(paths) for key, paths in record["v1"].items()}, _texts(record["v2"])
        )
    except RECORD_ERRORS:
        return None


def recorded_conf(state_dir: Path) -> str:
    """Return the path of the slurm.conf on record, "" where `recorded_groups` would be None."""
    try:
        return _texts([_valid_record(state_dir)["conf"]])[0]
    except RECORD_ERRORS:
        return ""


def _valid_record(state_dir: Path) -> dict[str, Any]:
    """Return the record; raises one of `RECORD_ERRORS`."""
    with os.fdopen(open_regular_file(state_dir / FILE_NAME, os.O_RDONLY), "rb") as stream:
        if os.fstat(stream.fileno()).st_uid not in (ROOT, os.geteuid()):
            raise ValueError("somebody else's file")
        record: dict[str, Any] = json.loads(stream.read())
    if any(record[key] != value for key, value in _validity().items()):
        raise ValueError("a record of another boot or namespace")
    return record


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
