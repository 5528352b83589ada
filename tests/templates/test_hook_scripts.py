"""Prolog and epilog scripts: fast without GPUs, and no drained node when canhazgpu is gone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest

from canhazgpu.templates.slurm_files import HookSettings, render_file

SETTINGS = HookSettings(
    python=sys.executable,
    client="/no/client",
    config_file=None,
    state_dir="/run/canhazgpu",
    hook_deadline_s=45.0,
)


def run(directory: Path, name: str, settings: HookSettings, **environ: str) -> tuple[int, str]:
    script = directory / name
    script.write_text(render_file(name, settings))
    done = subprocess.run(
        ["/bin/sh", str(script)], env=environ, capture_output=True, text=True, check=False
    )
    assert done.stdout == ""
    return done.returncode, done.stderr


def interpreter(directory: Path, body: str) -> str:
    """Make something in an interpreter's place that says how it was called."""
    path = directory / "it's python"
    path.write_text(f"#!/bin/sh\n{textwrap.dedent(body)}")
    path.chmod(0o755)
    return str(path)


TELL = 'echo "$1 $2 config=${CANHAZGPU_CONFIG-unset}" >&2; exit 2'


@pytest.mark.parametrize("gpus", [{}, {"SLURM_JOB_GPUS": ""}])
@pytest.mark.parametrize("name", ["prolog.sh", "epilog.sh"])
def test_a_job_without_gpus_starts_no_python(
    tmp_path: Path, name: str, gpus: dict[str, str]
) -> None:
    settings = replace(SETTINGS, python=interpreter(tmp_path, TELL), state_dir=str(tmp_path))

    assert run(tmp_path, name, settings, SLURM_JOB_ID="7", **gpus) == (0, "")


@pytest.mark.parametrize("name", ["prolog.sh", "epilog.sh"])
def test_the_hooks_status_is_slurms(tmp_path: Path, name: str) -> None:
    settings = replace(
        SETTINGS, python=interpreter(tmp_path, TELL), config_file="/etc/a site's.toml"
    )

    status, errors = run(tmp_path, name, settings, SLURM_JOB_ID="7", SLURM_JOB_GPUS="0")

    assert (status, errors) == (2, "-I -c config=/etc/a site's.toml\n")


@pytest.mark.parametrize("end", ["exit 1", "exit 3", "kill -KILL $$", "kill -BUS $$"])
@pytest.mark.parametrize("name", ["prolog.sh", "epilog.sh"])
def test_a_hook_that_dies_drains_nothing(tmp_path: Path, name: str, end: str) -> None:
    settings = replace(SETTINGS, python=interpreter(tmp_path, end))

    status, errors = run(tmp_path, name, settings, SLURM_JOB_ID="7", SLURM_JOB_GPUS="0")

    assert status == 0
    assert "canhazgpu: " in errors and "(status " in errors


@pytest.mark.parametrize("name", ["prolog.sh", "epilog.sh"])
def test_nothing_that_slurmd_runs_drains_its_node(tmp_path: Path, name: str) -> None:
    settings = replace(SETTINGS, python=interpreter(tmp_path, TELL))
    environ = {"SLURM_JOB_ID": "7", "SLURM_JOB_GPUS": "0", "SLURM_SCRIPT_CONTEXT": "prolog_slurmd"}

    status, errors = run(tmp_path, name, settings, **environ)

    assert status == 0
    assert "(status 2)" in errors


def test_a_prolog_that_is_killed_is_run_once_more(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    die_first = f"echo $HOOK_LOST_S >>{runs}\n[ $(wc -l <{runs}) -gt 1 ] || kill -KILL $$"
    settings = replace(SETTINGS, python=interpreter(tmp_path, die_first))

    status, errors = run(tmp_path, "prolog.sh", settings, SLURM_JOB_ID="7", SLURM_JOB_GPUS="0")

    # What was lost counts against the time of the second run.
    assert status == 0
    assert re.fullmatch(r"\n[0-4]\n", runs.read_text())
    assert "canhazgpu: " not in errors


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "ends"),
    [
        ("prolog.sh", ["sleep 6\nkill -KILL $$", "exit 1"]),
        # A second epilog would be taken for the next attempt's.
        ("epilog.sh", ["kill -KILL $$", "exit 1"]),
    ],
)
def test_a_hook_that_is_killed_late_or_fails_is_not_run_again(
    tmp_path: Path, name: str, ends: list[str]
) -> None:
    runs = tmp_path / "runs"
    for end in ends:
        runs.write_text("")
        settings = replace(SETTINGS, python=interpreter(tmp_path, f"echo >>{runs}\n{end}"))

        status, errors = run(tmp_path, name, settings, SLURM_JOB_ID="7", SLURM_JOB_GPUS="0")

        assert (status, runs.read_text()) == (0, "\n")
        assert "cannot run" in errors


def test_without_a_configuration_file_none_is_named(tmp_path: Path) -> None:
    settings = replace(SETTINGS, python=interpreter(tmp_path, TELL))

    assert run(tmp_path, "prolog.sh", settings, SLURM_JOB_GPUS="0") == (2, "-I -c config=unset\n")


def test_the_epilog_runs_for_a_job_that_has_a_record_alone(tmp_path: Path) -> None:
    settings = replace(
        SETTINGS, python=interpreter(tmp_path, TELL), state_dir=f"{tmp_path}/state of/%n"
    )
    record = tmp_path / "state of" / "n1" / "jobs" / "7.json"
    record.parent.mkdir(parents=True)
    record.write_text("{}")

    assert run(tmp_path, "epilog.sh", settings, SLURM_JOB_ID="7", SLURMD_NODENAME="n1")[0] == 2
    assert run(tmp_path, "epilog.sh", settings, SLURM_JOB_ID="8", SLURMD_NODENAME="n1")[0] == 0


@pytest.mark.parametrize(
    ("name", "consequence"),
    [
        ("prolog.sh", "the GPUs of job 7 are neither checked nor reserved"),
        ("epilog.sh", "the GPUs of job 7 stay reserved until they are reaped"),
    ],
)
def test_a_node_without_canhazgpu_is_not_drained(
    tmp_path: Path, name: str, consequence: str
) -> None:
    job = {"SLURM_JOB_ID": "7", "SLURM_JOB_GPUS": "0"}
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    broken = tmp_path / "broken"
    broken.write_text("#!/no/such/interpreter\n")
    broken.chmod(0o755)

    gone = run(tmp_path, name, replace(SETTINGS, python="/no/python"), **job)
    unloadable = run(tmp_path, name, replace(SETTINGS, python=str(broken)), **job)
    not_installed = run(tmp_path, name, replace(SETTINGS, python=f"{bare}/bin/python"), **job)

    module = f"canhazgpu.{name.removesuffix('.sh')}.main"
    assert gone == (0, f"canhazgpu: /no/python cannot be run; {consequence}\n")
    assert unloadable[0] == not_installed[0] == 0
    assert unloadable[1].endswith(
        f"canhazgpu: {broken} cannot run {module} (status 127); {consequence}\n"
    )
    assert not_installed[1].startswith("No module named 'canhazgpu'\n")
    assert not_installed[1].endswith(
        f"canhazgpu: {bare}/bin/python cannot run {module} (status 127); {consequence}\n"
    )


def test_the_working_directory_gives_no_code_to_root(tmp_path: Path) -> None:
    trap = tmp_path / "canhazgpu" / "prolog"
    trap.mkdir(parents=True)
    (trap / "main.py").write_text("raise SystemExit(9)\n")
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    script = tmp_path / "prolog.sh"
    script.write_text(render_file("prolog.sh", replace(SETTINGS, python=f"{bare}/bin/python")))
    environ = {**os.environ, "PYTHONPATH": str(tmp_path), "SLURM_JOB_GPUS": "0"}

    done = subprocess.run(["/bin/sh", str(script)], env=environ, cwd=tmp_path, check=False)

    assert done.returncode == 0
