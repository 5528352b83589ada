"""The hooks' record of slurmd's groups, which commands of ordinary users read."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from canhazgpu.schedulers.slurm.attribution.groups_record import (
    FILE_NAME,
    record_groups,
    recorded_conf,
    recorded_groups,
)
from canhazgpu.schedulers.slurm.attribution.job_group import SlurmdGroups

CONF = Path("/etc/slurm/slurm.conf")
GROUPS = SlurmdGroups({"freezer": ("/slurm", "/slurm_n1")}, ("/slurm.slice/slurmstepd.scope",))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    assert recorded_groups(tmp_path) is None
    record_groups(tmp_path, GROUPS, CONF)
    written = (tmp_path / FILE_NAME).stat()
    assert recorded_groups(tmp_path) == GROUPS
    assert recorded_conf(tmp_path) == str(CONF)
    assert written.st_mode & 0o777 == 0o644

    # and written only where it changes
    record_groups(tmp_path, GROUPS, CONF)
    assert (tmp_path / FILE_NAME).stat().st_ino == written.st_ino
    record_groups(tmp_path, SlurmdGroups(), CONF)
    assert recorded_groups(tmp_path) == SlurmdGroups()


@pytest.mark.parametrize(
    "changes",
    [
        {"boot_id": "of-another-boot"},
        {"cgroup_namespace": 1},
        {"v2": ["relative"]},
        {"v2": [3]},
        {"conf": 5},
        {"v1": []},
        {"v1": {"freezer": "/slurm"}},
    ],
)
def test_a_record_that_is_not_of_this_boot_and_namespace_is_none(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    record_groups(tmp_path, GROUPS, CONF)
    record = json.loads((tmp_path / FILE_NAME).read_text())
    (tmp_path / FILE_NAME).write_text(json.dumps({**record, **changes}))
    found = recorded_groups(tmp_path)
    assert found is None or changes.keys() <= {"v1", "conf"}
    assert changes.keys() & {"v1", "v2"} or recorded_conf(tmp_path) == ""


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "[" * 100000, '{"v1": {}}'])
def test_garbage_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE_NAME).write_text(text)
    assert recorded_groups(tmp_path) is None


def test_another_users_record_is_none(tmp_path: Path) -> None:
    record_groups(tmp_path, GROUPS, CONF)
    if os.geteuid() == 0:
        os.chown(tmp_path / FILE_NAME, 12345, 12345)
    assert recorded_groups(tmp_path) is None or os.geteuid() != 0
