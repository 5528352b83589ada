"""Who reads for a page: the store's login where there is one, else this host's agent."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from canhazgpu.cli.web.sources.choice import Choice, choose_source
from canhazgpu.errors import ConfigError

NOBODY = 65534
SOCKET = "/run/of-a-test/agent.sock"


@pytest.fixture
def somebody() -> Iterator[None]:
    """Let this test be another user's, for whom modes of files count."""
    if os.geteuid():
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def chosen(config: Path | None, agent: str = SOCKET, **overrides: str) -> Choice:
    environ = {"CANHAZGPU_AGENT_SOCKET": agent} if agent else {"CANHAZGPU_NODE_STATE_DIR": "/nix"}
    settings = {name.replace("__", "."): value for name, value in overrides.items()}
    return choose_source(environ, None if config is None else str(config), settings)


@pytest.fixture
def files() -> Iterator[Path]:
    """A directory that everybody may enter, with a login that only its owner reads."""
    # That of pytest is closed to other users.
    with tempfile.TemporaryDirectory(prefix="chg-source-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        login = directory / "login"
        login.write_text("hooks:secret\n")
        login.chmod(0o600 if os.geteuid() == 0 else 0)
        yield directory


def config(files: Path, text: str, mode: int = 0o644) -> Path:
    path = files / "config.toml"
    path.write_text(text)
    path.chmod(mode if os.geteuid() == 0 or mode & 0o4 else 0)
    return path


def test_everybodys_login_is_used(files: Path, request: pytest.FixtureRequest) -> None:
    url = "redis://reader:look@head:6379/0"
    path = config(files, f'[store]\nurl = "{url}"\nlogin_file = "{files}/login"\n')
    request.getfixturevalue("somebody")
    assert chosen(path).agent == ""


def test_whoever_reads_the_login_uses_it(files: Path) -> None:
    (files / "login").chmod(0o600)
    path = config(files, f'[store]\nurl = "redis://head:6379/0"\nlogin_file = "{files}/login"\n')
    assert chosen(path).agent == ""


def test_a_store_that_needs_no_login_is_asked(files: Path) -> None:
    assert chosen(config(files, '[store]\nurl = "redis://head:6379/0"\n')).agent == ""


def test_without_the_login_the_agent_is_asked(files: Path, request: pytest.FixtureRequest) -> None:
    store = f'[store]\nurl = "redis://head:6379/0"\nlogin_file = "{files}/login"\n'
    path = config(files, f"{store}[web]\npoll_s = 9\n")
    request.getfixturevalue("somebody")
    found = chosen(path)
    assert (found.agent, found.config.web.poll_s) == (SOCKET, 9.0)
    assert found.why == f"this user cannot read {files}/login"
    assert chosen(path, web__source="store").agent == ""
    assert chosen(path, agent="").agent == ""


def test_without_the_configuration_too(files: Path, request: pytest.FixtureRequest) -> None:
    path = config(files, '[web]\nlisten = "127.0.0.1:1"\n', 0o600)
    request.getfixturevalue("somebody")
    found = chosen(path, web__listen="127.0.0.1:9")
    assert (found.agent, found.config.web.listen) == (SOCKET, "127.0.0.1:9")
    assert str(path) in found.why
    for source, agent in (("store", SOCKET), ("auto", "")):
        with pytest.raises(ConfigError, match="cannot read configuration file"):
            chosen(path, agent=agent, web__source=source)


def test_where_nobody_says_where_the_store_is_the_agent_knows(files: Path) -> None:
    assert chosen(Path(os.devnull)).agent == SOCKET
    assert chosen(Path(os.devnull), store__url="redis://head:6379/0").agent == ""
    assert chosen(Path(os.devnull), agent="").agent == ""


def test_a_configuration_that_is_wrong_is_no_reason_to_ask_the_agent(files: Path) -> None:
    with pytest.raises(ConfigError, match="not TOML"):
        chosen(config(files, "["))


def test_the_agent_can_be_told_and_then_has_to_be_there(files: Path) -> None:
    path = config(files, '[store]\nurl = "redis://head:6379/0"\n[web]\nsource = "agent"\n')
    assert chosen(path).agent == SOCKET
    with pytest.raises(ConfigError, match="this host has no agent"):
        chosen(path, agent="")
