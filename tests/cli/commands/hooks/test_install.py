"""`canhazgpu hooks`: what is installed where, what is left alone, and what is said."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from canhazgpu.cli.app import App
from canhazgpu.cli.main import cli

SCRIPTS = {
    "etc/slurm/prolog.d/canhazgpu.sh",
    "etc/slurm/epilog.d/canhazgpu.sh",
    "etc/slurm/canhazgpu/task_prolog.sh",
    "etc/slurm/canhazgpu/health_check.sh",
}


def run(*args: str | Path, environ: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(cli, [str(one) for one in args], obj=App(environ=environ or {}))


def tree(root: Path) -> dict[str, tuple[int, str]]:
    return {
        str(path.relative_to(root)): (stat.S_IMODE(path.stat().st_mode), path.read_text())
        for path in root.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "image"


def test_scripts_are_installed_for_everybody_to_run(root: Path) -> None:
    before = os.umask(0o077)
    try:
        result = run("hooks", "install", "--root", root)
    finally:
        os.umask(before)

    installed = tree(root)
    assert result.exit_code == 0
    assert set(installed) == SCRIPTS
    assert {mode for mode, _ in installed.values()} == {0o755}
    directories = {stat.S_IMODE(one.stat().st_mode) for one in root.rglob("*") if one.is_dir()}
    assert directories == {0o755}
    assert not any(str(root) in text for _, text in installed.values())
    assert all("# Installed by canhazgpu" in text for _, text in installed.values())


def test_it_says_what_it_did_and_what_slurm_needs(root: Path) -> None:
    lines = run("hooks", "install", "--root", root).stdout.splitlines()

    assert set(lines[:4]) == {f"created {root / name}" for name in SCRIPTS}
    assert {
        "Prolog=/etc/slurm/prolog.d/*",
        "Epilog=/etc/slurm/epilog.d/*",
        "TaskProlog=/etc/slurm/canhazgpu/task_prolog.sh",
        "PrologFlags=Alloc",
        "PrologEpilogTimeout=60",
        "BatchStartTimeout=60",
        "HealthCheckProgram=/etc/slurm/canhazgpu/health_check.sh",
        "SchedulerParameters=nohold_on_prolog_fail",
    } <= set(lines)
    assert "scontrol reconfigure" in lines[-1]


def test_a_second_run_changes_nothing(root: Path) -> None:
    run("hooks", "install", "--root", root)
    before = written(root)

    result = run("hooks", "install", "--root", root, "--json")

    assert {one["action"] for one in json.loads(result.stdout)["files"]} == {"unchanged"}
    assert written(root) == before


def written(root: Path) -> dict[Path, tuple[int, ...]]:
    """Return what a file's writing changes; its time of access changes by reading."""
    found = {path: path.stat() for path in root.rglob("*")}
    return {
        path: (one.st_ino, one.st_mode, one.st_uid, one.st_size, one.st_mtime_ns, one.st_ctime_ns)
        for path, one in found.items()
    }


def test_an_older_script_or_a_changed_mode_is_put_right(root: Path) -> None:
    run("hooks", "install", "--root", root)
    installed = tree(root)
    (root / "etc/slurm/prolog.d/canhazgpu.sh").write_text("#!/bin/sh\n# Installed by canhazgpu\n")
    (root / "etc/slurm/epilog.d/canhazgpu.sh").chmod(0o644)

    files = json.loads(run("hooks", "install", "--root", root, "--json").stdout)["files"]

    actions = {one["path"].removeprefix("/"): one["action"] for one in files}
    assert actions == {
        "etc/slurm/prolog.d/canhazgpu.sh": "updated",
        "etc/slurm/epilog.d/canhazgpu.sh": "updated",
        "etc/slurm/canhazgpu/task_prolog.sh": "unchanged",
        "etc/slurm/canhazgpu/health_check.sh": "unchanged",
    }
    assert tree(root) == installed


def foreign_file(path: Path) -> None:
    path.write_text("#!/bin/sh\necho ours\n")


def foreign_link(path: Path) -> None:
    target = path.parent / "target"
    target.write_text("#!/bin/sh\n# Installed by canhazgpu\n")
    path.symlink_to(target)


def dangling_link(path: Path) -> None:
    path.symlink_to("/nonexistent")


def marker_too_late(path: Path) -> None:
    path.write_text("#!/bin/sh\n\n\n\n# Installed by canhazgpu\n")


@pytest.mark.parametrize(
    "put", [foreign_file, foreign_link, dangling_link, marker_too_late, Path.mkdir]
)
def test_what_is_not_ours_stays_and_nothing_is_installed(root: Path, put: object) -> None:
    path = root / "etc/slurm/epilog.d/canhazgpu.sh"
    path.parent.mkdir(parents=True)
    assert callable(put)
    put(path)
    before = tree(root)

    result = run("hooks", "install", "--root", root)

    assert result.exit_code == 2
    assert f"{path} was not installed by canhazgpu" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert tree(root) == before
    assert not (root / "etc/slurm/prolog.d").exists()


def test_other_scripts_beside_ours_stay(root: Path) -> None:
    other = root / "etc/slurm/prolog.d/10-site.sh"
    other.parent.mkdir(parents=True)
    other.write_text("#!/bin/sh\n")

    assert run("hooks", "install", "--root", root).exit_code == 0
    assert set(tree(root)) == SCRIPTS | {"etc/slurm/prolog.d/10-site.sh"}


def test_what_is_rendered_is_what_is_installed(root: Path, tmp_path: Path) -> None:
    """Files that a configuration manager ships are no fault to `hooks check`."""
    run("hooks", "install", "--root", root)
    run("hooks", "render", "--output", tmp_path / "out")

    rendered = tree(tmp_path / "out")
    installed = tree(root)
    assert {f"etc/slurm/{name}": one for name, one in rendered.items() if name.endswith(".sh")} == (
        installed
    )


@pytest.mark.parametrize("last", ["", "\n"])
def test_a_change_by_hand_is_not_lost_without_a_word(root: Path, last: str) -> None:
    run("hooks", "install", "--root", root)
    changed = root / "etc/slurm/epilog.d/canhazgpu.sh"
    # Above the seal, whose line end not every editor leaves.
    text = changed.read_text().replace("\nask_agent\n", "\necho mine\nask_agent\n")
    changed.write_text(text.removesuffix("\n") + last)

    shown = run("hooks", "install", "--root", root, "--dry-run")
    done = run("hooks", "install", "--root", root)
    again = run("hooks", "install", "--root", root)

    assert "-echo mine" in shown.stdout
    for result in (shown, done):
        assert f"warning: {changed} was changed by hand" in result.stderr
    assert "by hand" not in again.stderr


def test_the_health_check_is_told_what_slurmd_does_not_say(root: Path) -> None:
    file = configured(root / "etc/hooks.toml", "")
    conf = configured(root / "opt/slurm/slurm.conf", "ClusterName=c\n")

    run("--config", file, "hooks", "install", "--root", root, "--slurm-dir", "/opt/slurm")
    elsewhere = tree(root)["opt/slurm/canhazgpu/health_check.sh"][1]
    conf.unlink()
    run("--config", file, "hooks", "install", "--root", root, "--slurm-dir", "/opt/slurm")
    nowhere = tree(root)["opt/slurm/canhazgpu/health_check.sh"][1]

    assert "\nCANHAZGPU_CONFIG=/etc/hooks.toml\n" in elsewhere
    assert "\nSLURM_CONF=/opt/slurm/slurm.conf\n" in elsewhere
    assert f"\nprogram={Path(sys.executable).parent}/canhazgpu-healthcheck\n" in elsewhere
    assert "SLURM_CONF" not in nowhere


def test_a_dry_run_writes_nothing(root: Path) -> None:
    result = run("hooks", "install", "--root", root, "--dry-run")

    assert result.exit_code == 0
    assert result.stdout.startswith(f"to be created {root}/etc/slurm/prolog.d/canhazgpu.sh\n")
    assert not root.exists()


def test_where_nothing_can_be_written_one_line_says_so(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.touch()

    installed = run("hooks", "install", "--root", blocked)
    rendered = run("hooks", "render", "--output", blocked)

    for result in (installed, rendered):
        assert result.exit_code == 2
        assert len(result.stderr.splitlines()) == 1
        assert str(blocked) in result.stderr and "Not a directory" in result.stderr


@pytest.mark.parametrize("given", ["etc/slurm", "", "/etc\n/slurm"])
def test_a_slurm_directory_is_absolute(root: Path, given: str) -> None:
    result = run("hooks", "install", "--root", root, "--slurm-dir", given)

    assert result.exit_code == 2
    assert "is not an absolute path" in result.stderr
    assert not root.exists()


def configured(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_scripts_name_this_python_and_the_file_in_force(root: Path) -> None:
    file = configured(
        root / "etc/can haz.toml", '[node]\nstate_dir = "/var/spool/%n/gpu"\nname = "node7"\n'
    )

    result = run("--config", file, "hooks", "install", "--root", root, "--slurm-dir", "/opt/slurm/")

    installed = tree(root)
    prolog = installed["opt/slurm/prolog.d/canhazgpu.sh"][1]
    assert result.exit_code == 0
    assert "CANHAZGPU_CONFIG='/etc/can haz.toml'\n" in prolog  # as the node sees it
    assert f"\npython={sys.executable}\n" in prolog
    assert "/var/spool/node7/gpu/jobs/" in installed["opt/slurm/epilog.d/canhazgpu.sh"][1]
    assert "/var/spool/node7/gpu/jobs" in installed["opt/slurm/canhazgpu/task_prolog.sh"][1]
    assert "Prolog=/opt/slurm/prolog.d/*" in result.stdout


def test_a_virtual_environment_is_named_by_its_link(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = tmp_path / "python"
    link.symlink_to(sys.executable)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", "python")

    run("hooks", "install", "--root", root)

    assert f"\npython={link}\n" in tree(root)["etc/slurm/prolog.d/canhazgpu.sh"][1]


@pytest.mark.parametrize(
    ("arguments", "environ"),
    [
        (["--set", "node.state_dir=/elsewhere"], {}),
        ([], {"CANHAZGPU_NODE_STATE_DIR": "/elsewhere"}),
        ([], {"CANHAZGPU_NODE_NAME": "other"}),
    ],
)
def test_values_that_hooks_would_not_see_are_refused(
    root: Path, arguments: list[str], environ: dict[str, str]
) -> None:
    result = run(*arguments, "hooks", "install", "--root", root, environ=environ)

    assert result.exit_code == 2
    assert "which Slurm's hooks do not see; set it in" in result.stderr
    assert not root.exists()


def test_other_values_that_hooks_do_not_see_are_warned_of(root: Path) -> None:
    environ = {"CANHAZGPU_STORE_URL": "redis://user:secret@head/0"}

    result = run("hooks", "install", "--root", root, environ=environ)

    assert result.exit_code == 0
    assert (
        "warning: store.url comes from environment CANHAZGPU_STORE_URL, which Slurm's hooks do"
        " not see\n" in result.stderr
    )
    assert "secret" not in result.output


def test_what_others_can_change_is_warned_of(root: Path) -> None:
    file = configured(root / "open/config.toml", "")
    file.parent.chmod(0o777)

    result = run("--config", file, "hooks", "install", "--root", root, "--json")

    [warning] = [one for one in json.loads(result.stdout)["warnings"] if str(file) in one]
    assert f"through {file.parent}" in warning


def test_render_writes_every_file(tmp_path: Path) -> None:
    out = tmp_path / "out"
    url = "redis://hooks:geheim@head:6379/0"
    file = configured(tmp_path / "config.toml", f'[store]\nurl = "{url}"\n')

    result = run("--config", file, "hooks", "render", "--output", out, "--gpus", "2")

    files = tree(out)
    assert result.exit_code == 0
    assert set(files) == {
        "prolog.d/canhazgpu.sh",
        "epilog.d/canhazgpu.sh",
        "canhazgpu/task_prolog.sh",
        "canhazgpu/health_check.sh",
        "slurm.conf.canhazgpu",
        "gres.conf.example",
    }
    assert result.stdout.splitlines() == [str(out / name) for name in files_in_order(result)]
    assert {mode for name, (mode, _) in files.items() if name.endswith(".sh")} == {0o755}
    assert {mode for name, (mode, _) in files.items() if not name.endswith(".sh")} == {0o644}
    assert files["gres.conf.example"][1].count("File=/dev/nvidia") == 2
    assert not any("geheim" in text for _, text in files.values())


def files_in_order(result: Result) -> list[str]:
    return ["/".join(Path(line).parts[-2:]) if ".sh" in line else Path(line).name
            for line in result.stdout.splitlines()]  # fmt: skip


@pytest.mark.slow
def test_the_wheel_holds_the_templates(tmp_path: Path) -> None:
    """Data files are what a wheel forgets; where the wheel is tested, every other test sees it."""
    pytest.importorskip("hatchling", reason="the wheel itself is under test")
    project = Path(__file__).parents[4]
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=project,
        check=True,
        capture_output=True,
    )
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    templates = project / "templates"
    assert {str(path.relative_to(templates)) for path in templates.rglob("*.j2")} <= names


def test_the_agent_is_told_of_until_its_unit_is_installed(root: Path) -> None:
    command = f"canhazgpu agent install --root {root}"
    assert command in run("hooks", "install", "--root", root).stdout
    assert command in json.loads(run("hooks", "install", "--root", root, "--json").stdout)["hint"]

    unit = root / "etc/systemd/system/canhazgpu-agent.service"
    unit.parent.mkdir(parents=True)
    unit.write_text("# Installed by canhazgpu\n")

    assert json.loads(run("hooks", "install", "--root", root, "--json").stdout)["hint"] is None
    assert "agent install" not in run("hooks", "install", "--root", root).stdout
    left = run("hooks", "uninstall", "--root", root)
    assert "canhazgpu-agent.service" in left.stdout
    assert "canhazgpu agent uninstall" in left.stdout
    assert unit.exists()
