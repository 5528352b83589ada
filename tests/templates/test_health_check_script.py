"""The installed script for HealthCheckProgram, run as slurmd and as a site's own check run it."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from canhazgpu.templates.slurm_files import HookSettings, hook_texts

SETTINGS = HookSettings(
    python="/nowhere/python",
    client="/nowhere/client",
    config_file="/etc/can haz/$(id).toml",
    state_dir="/run/canhazgpu",
    hook_deadline_s=45.0,
    slurm_conf="/opt/it's/slurm.conf",
)


@pytest.fixture
def script(tmp_path: Path) -> Path:
    python = tmp_path / "it's here/bin/python"
    python.parent.mkdir(parents=True)
    path = tmp_path / "health_check.sh"
    path.write_text(hook_texts(replace(SETTINGS, python=str(python)))["canhazgpu/health_check.sh"])
    path.chmod(0o755)
    return path


def program(script: Path, body: str) -> Path:
    path = script.parent / "it's here/bin/canhazgpu-healthcheck"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def run(script: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [script, *arguments],
        env={"SLURMD_NODENAME": "n1"},  # as slurmd has it: no PATH
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_check_of_the_environment_runs_with_what_slurmd_does_not_say(script: Path) -> None:
    program(script, 'echo "$CANHAZGPU_CONFIG|$SLURM_CONF|$SLURMD_NODENAME|$*" >&2; exit 3')

    done = run(script, "--exit-code")

    assert done.stderr == "/etc/can haz/$(id).toml|/opt/it's/slurm.conf|n1|--exit-code\n"
    assert (done.returncode, done.stdout) == (3, "")


def test_an_environment_that_is_gone_is_no_fault_of_the_node(script: Path) -> None:
    """A site's own check that calls this one must not take it for a reason to drain."""
    done = run(script)

    assert done.returncode == 0
    assert done.stdout == ""
    assert "it's here/bin/canhazgpu-healthcheck cannot be run" in done.stderr


def test_whoever_asks_for_a_status_gets_it(script: Path) -> None:
    assert run(script, "--exit-code").returncode == 1


def test_what_cannot_be_executed_counts_as_gone(script: Path) -> None:
    program(script, "exit 0").chmod(0o644)
    assert "cannot be run" in run(script).stderr
