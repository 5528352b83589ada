"""Hooks that slurm.conf names without a directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from canhazgpu.errors import ConfigError
from canhazgpu.schedulers.slurm.conf.node_conf import read_settings
from canhazgpu.schedulers.slurm.site.hook_paths import (
    finds_relative_hooks,
    refuse_copied_hooks,
    relative_hooks,
    with_absolute_hooks,
)
from canhazgpu.schedulers.slurm.site.layout import plan_layout
from canhazgpu.schedulers.slurm.site.multi_node import allows_multi_node_jobs

RELATIVE = "Prolog=prolog.d/*\nProlog=/other/*\nEpilog=e.sh\nTaskProlog=t.sh\n"


def conf(directory: Path, text: str) -> Path:
    (directory / "slurm.conf").write_text(text)
    return directory / "slurm.conf"


def test_they_are_beside_slurm_conf(tmp_path: Path) -> None:
    settings = read_settings(conf(tmp_path, RELATIVE))
    found = with_absolute_hooks(settings, "/opt/slurm/etc/slurm.conf")
    assert found.all("Prolog") == ("/opt/slurm/etc/prolog.d/*", "/other/*")
    assert found.get("Epilog") == "/opt/slurm/etc/e.sh"
    assert relative_hooks(settings) == ("Prolog=prolog.d/*", "Epilog=e.sh", "TaskProlog=t.sh")
    assert relative_hooks(found) == ()
    assert with_absolute_hooks(found, "/elsewhere/slurm.conf") == found


def test_the_scripts_have_a_place_beside_them(tmp_path: Path) -> None:
    settings = read_settings(conf(tmp_path, "Prolog=prolog.d/*\nEpilog=e.sh\nTaskProlog=t.sh\n"))
    site = with_absolute_hooks(settings, "/opt/slurm/etc/slurm.conf")
    refuse_copied_hooks(site, ())
    layout = plan_layout(site, "/opt/slurm/etc", {}, {})
    assert layout.prolog.script == "/opt/slurm/etc/prolog.d/canhazgpu.sh"
    assert (layout.epilog.site, layout.task_prolog.site) == (
        "/opt/slurm/etc/e.sh",
        "/opt/slurm/etc/t.sh",
    )


@pytest.mark.parametrize(
    "path", ["/run/slurm/conf/slurm.conf", "/var/spool/slurmd/conf-cache/slurm.conf"]
)
@pytest.mark.parametrize("line", ["Prolog=prolog.d/*", "Epilog=e.sh", "TaskProlog=t.sh"])
def test_what_the_controller_sends_is_no_place(tmp_path: Path, path: str, line: str) -> None:
    site = with_absolute_hooks(read_settings(conf(tmp_path, f"{line}\n")), path)
    key = line.partition("=")[0]
    with pytest.raises(ConfigError, match=f"{key}=.*copy of the controller.*--chain {key}="):
        refuse_copied_hooks(site, ())
    refuse_copied_hooks(site, {key})


@pytest.mark.parametrize(
    ("version", "finds"),
    [
        ("slurm-wlm 22.05.8", False),
        ("slurm 23.02.7", False),
        ("slurm 23.11.0", True),
        ("slurm-wlm 26.05.5", True),
        (None, True),
    ],
)
def test_releases(version: str | None, finds: bool) -> None:
    assert finds_relative_hooks(version) is finds


@pytest.mark.parametrize(
    ("text", "several"),
    [
        ("NodeName=n1\nPartitionName=p Nodes=ALL\n", False),
        ("NodeName=DEFAULT Gres=gpu:1\nNodeName=n1\nPartitionName=p Nodes=n1\n", False),
        ("NodeName=n[1-2]\nPartitionName=p Nodes=ALL\n", True),
        ("NodeName=n1\nNodeName=n2\nPartitionName=p MaxNodes=1\nPartitionName=q\n", True),
        ("NodeName=n[1-2]\nPartitionName=p MaxNodes=1\n", False),
        ("NodeName=n[1-2]\nPartitionName=DEFAULT MaxNodes=1\nPartitionName=p\n", False),
        ("NodeName=n[1-2]\nPartitionName=DEFAULT MaxNodes=1\nPartitionName=p MaxNodes=2\n", True),
        ("NodeName=n[1-99999]\nPartitionName=p\n", True),
        ("NodeName=n[1-2]\n", False),
        ("", False),
    ],
)
def test_where_jobs_can_have_several_nodes(tmp_path: Path, text: str, several: bool) -> None:
    assert allows_multi_node_jobs(conf(tmp_path, text)) is several
