"""What hides the node's files from tasks, by Slurm's files, and what the check says of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from canhazgpu.schedulers.slurm.conf.node_conf import read_settings
from canhazgpu.schedulers.slurm.job_check.task_view import TaskView, hides, read_task_view


def view(directory: Path, conf: str, **files: str) -> TaskView:
    path = directory / "slurm.conf"
    path.write_text(conf)
    for name, text in files.items():
        (directory / f"{name}.conf").write_text(text)
    return read_task_view(path, read_settings(path))


@pytest.mark.parametrize(
    ("conf", "container", "private"),
    [
        ("", "Dirs=/run", ()),
        ("JobContainerType=job_container/none", "Dirs=/run", ()),
        ("JobContainerType=job_container/tmpfs", "BasePath=/x", ("/tmp", "/dev/shm")),
        ("JobContainerType=job_container/tmpfs", "BasePath=/x Dirs=/tmp,/run", ("/tmp", "/run")),
        ("NamespaceType=namespace/tmpfs", "AutoBasePath=true\nDirs=/run", ("/run",)),
    ],
)
def test_private_directories(
    tmp_path: Path, conf: str, container: str, private: tuple[str, ...]
) -> None:
    assert view(tmp_path, conf, job_container=container).private == private


@pytest.mark.parametrize(
    ("plugstack", "included", "has_pyxis"),
    [
        ("required /usr/lib/spank_pyxis.so execute_entrypoint=0", "", True),
        ("# required spank_pyxis.so", "", False),
        ("include *.d.conf", "optional spank_pyxis.so", True),
        ("include /nowhere/*", "optional spank_pyxis.so", False),
        ("", "", False),
    ],
)
def test_pyxis(tmp_path: Path, plugstack: str, included: str, has_pyxis: bool) -> None:
    (tmp_path / "a.d.conf").write_text(included)
    assert view(tmp_path, "", plugstack=plugstack).has_pyxis is has_pyxis


@pytest.mark.parametrize(
    ("path", "by"),
    [
        ("/run/canhazgpu", "/run"),
        ("/run", "/run"),
        ("/running/canhazgpu", ""),
        ("/etc/slurm/x", ""),
        ("/var/tmp/x", "/var/tmp/"),
    ],
)
def test_what_a_private_directory_hides(path: str, by: str) -> None:
    assert hides(("/run", "/var/tmp/"), path) == by
