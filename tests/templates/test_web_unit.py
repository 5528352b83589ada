"""systemd reads the unit of the pages as it is meant."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from canhazgpu.cli.main import cli
from canhazgpu.templates.web_unit import WEB_UNIT, web_unit_text

from .test_units import STRANGE, python_at, verified

needs_systemd = pytest.mark.skipif(
    not shutil.which("systemd-analyze"), reason="systemd is not installed here"
)


@needs_systemd
@pytest.mark.parametrize("name", ["plain", "50%n $HOME", STRANGE])
def test_systemd_finds_no_fault_in_the_unit(tmp_path: Path, name: str) -> None:
    unit = tmp_path / WEB_UNIT
    python = python_at(tmp_path / name / "bin")
    unit.write_text(web_unit_text(python, f"/etc/{name}", f"/etc/{name}/login"), "utf-8")
    assert verified([unit]).strip() == ""


@needs_systemd
def test_systemd_finds_no_fault_in_the_unit_of_a_page_that_asks_the_agent(tmp_path: Path) -> None:
    unit = tmp_path / WEB_UNIT
    unit.write_text(web_unit_text(python_at(tmp_path / "bin"), through_agent=True), "utf-8")
    assert verified([unit]).strip() == ""


def test_a_page_that_asks_the_agent_gets_no_login(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[store]\nlogin_file = "/etc/canhazgpu/login"\n', "utf-8")
    words = ["--config", str(config), "--set", "web.source=agent", "web", "--unit"]
    lines = CliRunner().invoke(cli, words).stdout.splitlines()
    assert "Environment=CANHAZGPU_WEB_SOURCE=agent" in lines
    assert not [one for one in lines if "login" in one and not one.startswith("#")]


@needs_systemd
def test_the_verification_sees_a_wrong_setting(tmp_path: Path) -> None:
    unit = tmp_path / WEB_UNIT
    text = web_unit_text(python_at(tmp_path / "bin"))
    unit.write_text(text.replace("DynamicUser=yes", "DynamicUser=perhaps"), "utf-8")
    assert verified([unit]).strip() != ""


def test_the_command_prints_the_unit_of_this_environment(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[store]\nlogin_file = "/etc/canhazgpu/login"\n', "utf-8")
    done = CliRunner().invoke(cli, ["--config", str(config), "web", "--unit"])
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert f"Environment=CANHAZGPU_CONFIG={config}" in lines
    assert "LoadCredential=store-login:/etc/canhazgpu/login" in lines
    assert any(
        line.startswith("ExecStart=") and Path(sys.executable).name in line for line in lines
    )
