"""What the program knows of a command line before it imports click."""

import pytest

from canhazgpu.agent.command_client.words import (
    AGENT_COMMANDS,
    command_of_run,
    completed_words,
    is_live_view,
    words_of,
)
from canhazgpu.cli.main import COMMANDS

LOCAL = {"agent", "completion", "config", "hooks", "store", "web"}


def test_each_command_is_the_agents_or_this_processs() -> None:
    assert set(AGENT_COMMANDS) == set(COMMANDS) - LOCAL


@pytest.mark.parametrize(
    ("line", "command", "config_file", "is_configured"),
    [
        ("status", "status", "", False),
        ("--config a.toml status", "status", "a.toml", True),
        ("--config=a.toml status --me", "status", "a.toml", True),
        ("--set run.max_gpus=1 run -- true", "run", "", True),
        ("--set=a.b=c queue", "queue", "", True),
        ("--help", "", "", False),
        ("-h status", "status", "", False),
        ("--config", "", "", True),
        ("run -- canhazgpu --config x status", "run", "", False),
        ("run python --set a.b=1", "run", "", False),
        ("", "", "", False),
    ],
)
def test_the_command_and_what_stands_before_it(
    line: str, command: str, config_file: str, is_configured: bool
) -> None:
    found = words_of(line.split())
    assert (found.command, found.config_file, found.is_configured) == (
        command,
        config_file,
        is_configured,
    )


@pytest.mark.parametrize(
    ("line", "node"),
    [
        ("status --node gpu01", "gpu01"),
        ("admin release --node=gpu01 --all", "gpu01"),
        ("run -g 1 -- x --node gpu01", ""),
        ("run x --node gpu01", ""),
        ("--node gpu01 status", ""),
    ],
)
def test_the_node_that_is_named(line: str, node: str) -> None:
    assert words_of(line.split()).node == node


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("run -g 1 -- python -c x", ["python", "-c", "x"]),
        ("run -g 1 python", []),
        ("run --", []),
        ("status -- x", []),
    ],
)
def test_the_command_of_a_run_where_it_is_certain(line: str, command: list[str]) -> None:
    assert command_of_run(words_of(line.split()), line.split()) == command


def test_a_view_of_a_terminal() -> None:
    for line, expected in {
        "status --watch": True,
        "status --watch=5 --me": True,
        "status --watch --json": False,
        "status -j --watch": False,
        "status": False,
        "run -- watch --watch": False,
    }.items():
        assert is_live_view(words_of(line.split()), line.split()) is expected


def test_the_words_that_a_shell_completes() -> None:
    given = {b"_CANHAZGPU_COMPLETE": b"zsh_complete", b"COMP_WORDS": b"canhazgpu status --no"}
    assert completed_words(given) == ["status", "--no"]
    assert completed_words({**given, b"_CANHAZGPU_COMPLETE": b"zsh_source"}) == []
    assert completed_words({}) == []
