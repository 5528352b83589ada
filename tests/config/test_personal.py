"""The defaults of a person without root: where they hold, and what they are."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from canhazgpu.config import Config, load, personal
from canhazgpu.config.personal import personal_defaults
from canhazgpu.errors import ConfigError

HOST = os.uname().nodename.partition(".")[0]


@pytest.fixture
def system_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The host's configuration file; neither it nor root's directories exist at first."""
    found = tmp_path / "etc" / "config.toml"
    monkeypatch.setattr(sys.modules["canhazgpu.config.load"], "DEFAULT_CONFIG_FILE", found)
    monkeypatch.setattr(personal, "ROOTS_DIRECTORIES", (tmp_path / "run", tmp_path / "lib"))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    return found


@pytest.fixture
def home(tmp_path: Path, system_file: Path) -> Path:
    return tmp_path / "home"


def environ(home: Path, **more: str) -> dict[str, str]:
    return {"HOME": str(home), **more}


def test_a_users_directories_are_where_the_xdg_specification_has_them(home: Path) -> None:
    config = load(environ(home, XDG_RUNTIME_DIR="/run/user/1000")).config

    kept = f"{home}/.local/state/canhazgpu/{HOST}"
    assert config.store.embedded_dir == f"{kept}/store"
    assert config.node.marker_dir == f"{kept}/served"
    assert config.node.state_dir == "/run/user/1000/canhazgpu"


def test_the_variables_of_the_specification_move_them(home: Path) -> None:
    named = environ(home, XDG_STATE_HOME="/data/ann", XDG_CONFIG_HOME=f"{home}/conf")
    (home / "conf" / "canhazgpu").mkdir(parents=True)
    (home / "conf" / "canhazgpu" / "config.toml").write_text('[store]\nurl = "embedded"\n')

    found = load(named)

    assert found.config.store.embedded_dir == f"/data/ann/canhazgpu/{HOST}/store"
    assert found.config.node.state_dir == f"/data/ann/canhazgpu/{HOST}/run/canhazgpu"
    assert found.file == home / "conf" / "canhazgpu" / "config.toml"


def test_a_relative_path_in_a_variable_is_ignored(home: Path) -> None:
    moved = environ(home, XDG_STATE_HOME="state", XDG_RUNTIME_DIR=".", XDG_CONFIG_HOME="")
    assert load(moved) == load(environ(home))


def test_a_users_own_file_environment_and_flags_win_over_these_defaults(home: Path) -> None:
    own = home / ".config" / "canhazgpu" / "config.toml"
    own.parent.mkdir(parents=True)
    own.write_text('[node]\nstate_dir = "/s"\nmarker_dir = "/m"\n')

    found = load(environ(home, CANHAZGPU_NODE_MARKER_DIR="/n"), overrides={"node.name": "here"})

    node = found.config.node
    assert (node.state_dir, node.marker_dir, node.name) == ("/s", "/n", "here")
    assert found.origins["store.embedded_dir"] == "your own default"
    assert found.origins["node.state_dir"] == f"file {own}"
    assert found.config.store.url == Config().store.url


def test_a_users_own_file_that_cannot_be_read_is_refused(home: Path) -> None:
    own = home / ".config" / "canhazgpu" / "config.toml"
    own.parent.mkdir(parents=True)
    own.write_text("[store")

    with pytest.raises(ConfigError, match="is not TOML"):
        load(environ(home))


@pytest.mark.parametrize("what", ["etc/config.toml", "run", "lib"])
def test_where_root_has_set_up_the_host_the_hosts_defaults_hold(home: Path, what: str) -> None:
    present = home.parent / what
    present.parent.mkdir(exist_ok=True)
    present.touch()
    own = home / ".config" / "canhazgpu" / "config.toml"
    own.parent.mkdir(parents=True)
    own.write_text('[store]\nurl = "embedded"\n')

    assert load(environ(home)).config == Config()


@pytest.mark.parametrize(
    "given",
    [
        {"CANHAZGPU_CONFIG": os.devnull},
        {"CANHAZGPU_AGENT_SOCKET": "/elsewhere/agent.sock"},
        {"HOME": "home"},
        {"HOME": ""},
    ],
)
def test_who_names_a_file_or_an_agent_or_has_no_home_has_the_hosts_defaults(
    home: Path, given: dict[str, str]
) -> None:
    assert load({**environ(home), **given}).config == Config()


def test_root_has_the_hosts_defaults(
    home: Path, system_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)

    assert personal_defaults(environ(home), system_file) is None
