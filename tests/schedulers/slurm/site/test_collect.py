"""What is gathered of a node for the checks, from real files, programs and processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from servers.private_redis import PrivateRedis, any_binary

from canhazgpu.config.schema import Config, SlurmConfig, StoreConfig, ValidationConfig
from canhazgpu.ledger.local.book.served_boot import ServedBoot
from canhazgpu.node.identity import boot_id
from canhazgpu.schedulers.slurm.conf.settings import Settings
from canhazgpu.schedulers.slurm.control.commands import SlurmCommands
from canhazgpu.schedulers.slurm.site.collect import (
    ask_controller,
    collect_slurm_state,
    find_broken_commands,
    find_missing_commands,
    find_nvml_libraries,
    find_slurm_conf,
    read_slurm_version,
)
from canhazgpu.schedulers.slurm.site.file_permissions import find_closed_to_users
from canhazgpu.schedulers.slurm.site.hook_probe import probe_as_hook
from canhazgpu.schedulers.slurm.site.programs import inspect_program, matched_programs
from canhazgpu.schedulers.slurm.site.state import Program
from canhazgpu.schedulers.slurm.site.state_dir import inspect_state_dir


def script(path: Path, body: str = "", mode: int = 0o755) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(mode)
    return path


def test_what_a_pattern_matches_is_what_slurmd_would_run(tmp_path: Path) -> None:
    site = tmp_path / "p.d"
    script(site / "b.sh")
    script(site / "a.txt", mode=0o644)
    script(site / ".hidden.sh")
    (site / "sub").mkdir()
    (site / "gone").symlink_to("/nonexistent")
    (site / "link").symlink_to(site / "b.sh")

    found = matched_programs(
        Settings({"prolog": (f"{site}/*",), "epilog": (f"{site}/b.sh", "/x/*")})
    )

    assert found["Prolog"] == (
        Program(f"{site}/a.txt", "cannot be executed (mode 644)"),
        Program(f"{site}/b.sh"),
        Program(f"{site}/gone", "cannot be read (No such file or directory)"),
        Program(f"{site}/link"),
        Program(f"{site}/sub", "is no file"),
    )
    assert found["Epilog"] == (Program(f"{site}/b.sh"),)
    assert found["TaskProlog"] == ()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("#!/bin/sh\r\n", "names /bin/sh\\r, which is not there"),
        ("#!/opt/none/python3 -I\n", "names /opt/none/python3, which is not there"),
        ("echo\n", "begins with no #! line"),
        ("", "begins with no #! line"),
        ("#! /bin/sh -e\n", None),
        ("#!/usr/bin/env bash\n", None),
    ],
)
def test_a_script_that_the_kernel_does_not_execute(
    tmp_path: Path, text: str, problem: str | None
) -> None:
    path = script(tmp_path / "a.sh")
    path.write_text(text, newline="")
    assert inspect_program(str(path), by_users=False).problem == problem


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts file systems")
def test_directories_that_root_cannot_use(tmp_path: Path) -> None:
    place = tmp_path / "tmpfs"
    place.mkdir()

    def mount(*options: str) -> bool:
        command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "none", str(place)]
        return subprocess.run(command, check=False, capture_output=True).returncode == 0

    if not mount("size=64k", "noexec", "mode=755"):
        pytest.skip("this machine lets nobody mount")
    try:
        program = inspect_program(str(script(place / "a.sh")), by_users=False)
        assert "noexec" in str(program.problem)
        assert inspect_state_dir(place / "run").write_fault == "No space left on device"
        assert mount("remount", "size=1m", "mode=755")
        assert inspect_state_dir(place / "run").write_fault is None
        beside = inspect_state_dir(place / "run", "n1", place / "lib").marker_fault
        assert beside == f"it is in the same tmpfs as {place / 'run'}, and is lost with it"
        elsewhere = inspect_state_dir(place / "run", "n1", tmp_path / "lib").marker_fault
        assert elsewhere is None
        assert mount("remount", "ro")
        readonly = inspect_state_dir(tmp_path / "run", "n1", place / "lib").marker_fault
        assert readonly == "Read-only file system"
        assert inspect_state_dir(place / "run").write_fault == "Read-only file system"
    finally:
        subprocess.run(["umount", str(place)], check=True)
    assert [path.name for path in tmp_path.iterdir()] == ["tmpfs"]


def test_a_published_book_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "published.json").write_text("{")
    assert "published.json cannot be read" in str(inspect_state_dir(tmp_path, "n1").damaged)
    (tmp_path / "published.json").unlink()
    assert inspect_state_dir(tmp_path, "n1").damaged is None


def test_a_published_book_that_was_lost_is_named(tmp_path: Path) -> None:
    run, lib = tmp_path / "run", tmp_path / "lib"
    assert inspect_state_dir(run, "n1", lib).damaged is None
    ServedBoot(lib, run, boot_id()).note()
    assert "is missing, and was there" in str(inspect_state_dir(run, "n1", lib).damaged)


def test_commands_that_do_not_run_and_a_controller_that_does_not_answer(tmp_path: Path) -> None:
    script(tmp_path / "squeue", "echo no libslurm >&2; exit 127")
    script(tmp_path / "scancel", '[ "$SLURM_CONF" = /x/slurm.conf ]')
    script(
        tmp_path / "scontrol",
        'case "$2" in config) echo "A = b" ;; *) echo "Node n9 not found"; exit 1 ;; esac',
    )
    broken = find_broken_commands(str(tmp_path), "/x/slurm.conf", {"squeue", "scancel"})
    assert broken == {"squeue": "squeue --version failed: no libslurm"}
    commands = SlurmCommands(str(tmp_path), 20.0, {})
    settings, fault, known = ask_controller(commands, "n9")
    assert (settings and settings.get("A"), fault, known) == ("b", None, False)
    script(tmp_path / "scontrol", "echo Unable to contact slurm controller >&2; exit 1")
    settings, fault, known = ask_controller(commands, "n9")
    assert (settings, known) == (None, None)
    assert "Unable to contact slurm controller" in str(fault)


def test_below_a_root_paths_are_the_nodes(tmp_path: Path) -> None:
    script(tmp_path / "etc/p.d/a.sh")
    found = matched_programs(Settings({"prolog": ("/etc/p.d/*",)}), tmp_path)
    assert found["Prolog"] == (Program("/etc/p.d/a.sh"),)


def test_a_task_prolog_is_for_users_to_run(tmp_path: Path) -> None:
    path = script(tmp_path / "t.sh", mode=0o700)
    assert inspect_program(str(path), by_users=False) == Program(str(path))
    assert inspect_program(str(path), by_users=True).problem == "users cannot execute (mode 700)"
    path.chmod(0o755)
    tmp_path.chmod(0o700)
    found = inspect_program(str(path), by_users=True).problem
    assert found is not None and found.startswith("users cannot reach (")


def test_what_is_closed_to_users_is_named(tmp_path: Path) -> None:
    base = Path("/tmp") / f"closed-{os.getpid()}"
    file = script(base / "a" / "b" / "f", mode=0o644)
    try:
        base.chmod(0o755)
        assert find_closed_to_users(file) is None
        (base / "a").chmod(0o750)
        assert find_closed_to_users(file) == base / "a"
        (base / "a").chmod(0o711)
        assert find_closed_to_users(file) is None
        file.chmod(0o640)
        assert find_closed_to_users(file) == file
        assert inspect_state_dir(base / "a").mode == 0o711
        assert inspect_state_dir(base / "absent").mode is None
        (base / "a" / "jobs").mkdir(mode=0o700)
        assert inspect_state_dir(base / "a").blocked_by == str(base / "a" / "jobs")
        (base / "a" / "jobs").rmdir()
    finally:
        for path in (file, base / "a/b", base / "a", base):
            path.unlink() if path.is_file() else path.rmdir()


def test_slurm_conf_is_looked_for_where_the_node_has_it(tmp_path: Path) -> None:
    environ = {"SLURM_CONF": "/elsewhere/slurm.conf"}
    assert find_slurm_conf("/named", environ, "/etc/slurm", Path("/")) == "/named"
    assert find_slurm_conf(None, environ, "/etc/slurm", Path("/")) == "/elsewhere/slurm.conf"
    # An image is not this host's Slurm.
    assert find_slurm_conf(None, environ, "/etc/slurm", tmp_path) == "/etc/slurm/slurm.conf"
    assert find_slurm_conf(None, {}, str(tmp_path), Path("/")) in (
        f"{tmp_path}/slurm.conf",
        "/run/slurm/conf/slurm.conf",
    )


def conf(directory: Path, text: str) -> str:
    (directory / "slurm.conf").write_text(text)
    return str(directory / "slurm.conf")


def test_slurms_files_are_read_and_its_controller_asked(tmp_path: Path) -> None:
    (tmp_path / "cgroup.conf").write_text("ConstrainDevices=yes\n")
    (tmp_path / "gres.conf").write_text("AutoDetect=nvml\n")
    (tmp_path / "hooks.conf").write_text("Prolog=/p\n")
    path = conf(tmp_path, "Include hooks.conf\nNodeName=n[1-2] Gres=gpu:2\nNodeName=n[9-\n")
    bin_dir = tmp_path / "bin"
    script(bin_dir / "scontrol", 'echo "Prolog   = /q"; echo "SLURM_CONF = $SLURM_CONF"')
    script(tmp_path / "sbin" / "slurmd", 'echo "slurm 23.11.4"')

    side = collect_slurm_state(path, "n2", "n2", SlurmConfig(bin_dir=str(bin_dir)))

    assert side.conf.fault is None
    assert side.settings.get("Prolog") == "/p"
    assert (side.knows_node, side.has_constrain_devices) == (True, True)
    assert side.node_conf.gres_conf.autodetect == "nvml"
    assert side.controller_settings is not None
    assert side.controller_settings.get("Prolog") == "/q"
    assert side.controller_settings.get("SLURM_CONF") == path
    assert side.version == "slurm 23.11.4"
    assert side.missing_commands == ("squeue", "scancel")


def test_nothing_of_slurm_is_a_fault_and_not_an_error(tmp_path: Path) -> None:
    side = collect_slurm_state(
        f"{tmp_path}/slurm.conf", "n1", "n1", SlurmConfig(bin_dir=str(tmp_path))
    )
    assert side.conf.fault == "No such file"
    assert (side.controller_settings, side.knows_node) == (None, False)
    (tmp_path / "slurm.conf").mkdir()
    side = collect_slurm_state(
        f"{tmp_path}/slurm.conf", "n1", "n1", SlurmConfig(bin_dir=str(tmp_path))
    )
    assert side.conf.fault is not None and "Is a directory" in side.conf.fault


@pytest.mark.slow
def test_programs_that_hang_are_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("canhazgpu.schedulers.slurm.site.collect.QUERY_TIMEOUT_S", 0.2)
    monkeypatch.setattr("canhazgpu.schedulers.slurm.control.slurmd_gres.SBIN_DIRS", ())
    for name in ("slurmd", "scontrol"):
        script(tmp_path / name, "exec /bin/sleep 30")
    side = collect_slurm_state(
        conf(tmp_path, "Prolog=/p\n"), "n1", "n1", SlurmConfig(bin_dir=str(tmp_path))
    )
    assert (side.version, side.controller_settings) == (None, None)
    assert read_slurm_version(str(tmp_path)) is None


def test_commands_are_looked_for_where_hooks_look(tmp_path: Path) -> None:
    assert find_missing_commands(str(tmp_path)) == ("scontrol", "squeue", "scancel")


def test_libraries_are_offered_where_they_are(tmp_path: Path) -> None:
    (tmp_path / "libnvidia-ml.so.1").touch()
    assert find_nvml_libraries(f"relative:{tmp_path}")[0] == f"{tmp_path}/libnvidia-ml.so.1"


def config(tmp_path: Path, url: str, library: str = "/nonexistent/lib.so.1") -> tuple[str, Config]:
    file = tmp_path / "config.toml"
    file.write_text(
        f'[store]\nurl = "{url}"\ntimeout_s = 1.0\n[validation]\nnvml_library = "{library}"\n'
    )
    store, validation = StoreConfig(url=url, timeout_s=1.0), ValidationConfig(nvml_library=library)
    return str(file), Config(store=store, validation=validation)


@pytest.mark.slow
def test_a_hook_sees_the_store_and_its_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The shell's variables are no hook's.
    monkeypatch.setenv("CANHAZGPU_STORE_URL", "redis://127.0.0.1:1/0")
    with PrivateRedis(binary=any_binary()) as server:
        file, configured = config(tmp_path, server.url)
        seen = probe_as_hook(sys.executable, file, configured, "/none", "n1")
    assert (seen.fault, seen.store_fault) == (None, None)
    assert seen.skew_s is not None and abs(seen.skew_s) < 1 + seen.skew_error_s
    assert seen.gpu_fault is not None and "/nonexistent/lib.so.1" in seen.gpu_fault


@pytest.mark.slow
def test_a_hook_sees_that_the_store_is_away(tmp_path: Path) -> None:
    file, configured = config(tmp_path, "redis://127.0.0.1:1/0")
    seen = probe_as_hook(sys.executable, file, configured, "/none", "n1")
    assert seen.store_fault is not None and "127.0.0.1:1" in seen.store_fault
    assert seen.skew_s is None


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ("echo no JSON", "what a hook saw cannot be read"),
        ("echo '{}'", "what a hook saw cannot be read"),
        ("echo '[]'", "what a hook saw cannot be read"),
        ("echo went wrong >&2; exit 3", "ended with 3: went wrong"),
        ("kill -KILL $$", "ended with -9"),
    ],
)
def test_a_python_that_does_not_work_is_a_fault(tmp_path: Path, body: str, fault: str) -> None:
    python = script(tmp_path / "python", body)
    seen = probe_as_hook(str(python), None, Config(), "/none", "n1")
    assert seen.fault is not None and fault in seen.fault
    missing = probe_as_hook("/no/python", None, Config(), "/none", "n1")
    assert missing.fault == "cannot run /no/python: No such file or directory"


def test_a_python_that_hangs_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("canhazgpu.schedulers.slurm.site.hook_probe.PYTHON_START_S", 0.1)
    python = script(tmp_path / "python", "exec /bin/sleep 30")
    quick = Config(
        store=StoreConfig(timeout_s=0.01), validation=ValidationConfig(scan_timeout_s=0.1)
    )
    seen = probe_as_hook(str(python), None, quick, "/none", "n1")
    assert seen.fault is not None and "no answer within" in seen.fault
