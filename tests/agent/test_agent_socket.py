"""Where the program looks for the agent's socket."""

import socket
from pathlib import Path

import pytest

from canhazgpu.agent import agent_socket as module
from canhazgpu.agent.agent_socket import absent_agent, agent_socket


@pytest.fixture(autouse=True)
def usual(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The usual places, without anything in them."""
    monkeypatch.setattr(module, "DEFAULT_STATE_DIR", str(tmp_path / "usual"))
    monkeypatch.setattr(module, "DEFAULT_CONFIG", str(tmp_path / "etc.toml"))
    return tmp_path / "usual"


def with_socket(state_dir: Path) -> str:
    path = state_dir / "agent/agent.sock"
    path.parent.mkdir(parents=True)
    path.touch()
    return str(path)


def configured(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_no_agent() -> None:
    assert agent_socket({}) == ""


def test_the_usual_place(usual: Path) -> None:
    path = with_socket(usual)
    assert agent_socket({}) == path


def test_the_variable_counts_first(usual: Path) -> None:
    with_socket(usual)
    assert agent_socket({"CANHAZGPU_AGENT_SOCKET": "/x/agent.sock"}) == "/x/agent.sock"


def test_an_agent_that_does_not_run(usual: Path) -> None:
    assert absent_agent({}) == ""
    path = with_socket(usual)
    assert absent_agent({}) == ""
    Path(path).unlink()
    assert absent_agent({}) == path
    assert absent_agent({"CANHAZGPU_AGENT_SOCKET": "/x/agent.sock"}) == "/x/agent.sock"


@pytest.mark.parametrize("way", ["option", "variable", "default"])
def test_the_configured_place(tmp_path: Path, usual: Path, way: str) -> None:
    path = with_socket(tmp_path / "own")
    file = "etc.toml" if way == "default" else "own.toml"
    config = configured(tmp_path / file, f'[node]\nstate_dir = "{tmp_path / "own"}"\n')
    if way != "default":
        with_socket(usual)
    environ = {"CANHAZGPU_CONFIG": config} if way == "variable" else {}
    assert agent_socket(environ, config if way == "option" else "") == path


def test_the_key_in_the_environment(tmp_path: Path, usual: Path) -> None:
    with_socket(usual)
    path = with_socket(tmp_path / "own")
    assert agent_socket({"CANHAZGPU_NODE_STATE_DIR": str(tmp_path / "own")}) == path


def test_one_of_several_nodes(tmp_path: Path) -> None:
    config = configured(
        tmp_path / "own.toml", f'[node]\nname = "n1"\nstate_dir = "{tmp_path}/%n"\n'
    )
    first, second = with_socket(tmp_path / "n1"), with_socket(tmp_path / "n2")
    assert agent_socket({}, config) == first
    assert agent_socket({}, config, "n2") == second
    assert agent_socket({}, config, "elsewhere") == first
    assert agent_socket({"SLURMD_NODENAME": "n2"}, config) == second
    host = with_socket(tmp_path / socket.gethostname().split(".")[0])
    unnamed = configured(tmp_path / "other.toml", f'[node]\nstate_dir = "{tmp_path}/%n"\n')
    assert agent_socket({}, unnamed) == host


@pytest.mark.parametrize("text", ["", "not toml", "node = 3", "[node]\nstate_dir = 3"])
def test_a_configuration_without_it(tmp_path: Path, usual: Path, text: str) -> None:
    path = with_socket(usual)
    assert agent_socket({}, configured(tmp_path / "own.toml", text)) == path
