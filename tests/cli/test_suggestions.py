"""What is suggested for a mistyped command or option."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner
from command_tree import all_commands

from canhazgpu.cli.app import App
from canhazgpu.cli.command_group import CommandGroup
from canhazgpu.cli.main import cli
from canhazgpu.cli.suggestions import MAX_SHOWN_CHARS, similar_words


def error(*arguments: str) -> str:
    result = CliRunner().invoke(cli, list(arguments), obj=App(environ={}), prog_name="canhazgpu")
    assert result.stdout == ""
    assert result.exit_code == (3 if "validate" in arguments[:3] else 2)
    (line,) = (line for line in result.stderr.splitlines() if line.startswith("Error: "))
    return line.removeprefix("Error: ")


def mistyped(name: str) -> set[str]:
    swapped = name[:1] + name[2:3] + name[1:2] + name[3:]
    return {name[:-1], f"{name}s", swapped, name.upper(), name.replace("e", "a", 1)} - {name}


COMMANDS = {path for path in all_commands() if path}


@pytest.mark.parametrize("path", sorted(COMMANDS), ids=" ".join)
def test_every_mistyped_command_is_found(path: tuple[str, ...]) -> None:
    for word in mistyped(path[-1]):
        if (*path[:-1], word) not in COMMANDS:
            told = error(*path[:-1], word)
            assert told.startswith(f"No such command {word!r}. Did you mean ")
            assert f"'canhazgpu {' '.join(path)}'" in told


def long_options() -> list[tuple[tuple[str, ...], str]]:
    return [
        (path, name)
        for path, command in all_commands().items()
        for one in command.params
        if isinstance(one, click.Option) and not one.hidden
        for name in one.opts
        if name.startswith("--")
    ]


@pytest.mark.parametrize(("path", "name"), long_options(), ids=str)
def test_every_mistyped_option_is_found(path: tuple[str, ...], name: str) -> None:
    names = {known for where, known in long_options() if where == path}
    for word in {f"{name}x", name[:3] + name[4:], name.upper()} - names:
        told = error(*path, word)
        assert told.startswith(f"No such option {word!r}. Did you mean ")
        assert f"'{name}'" in told


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nodes"], "No such command 'nodes'. Did you mean 'canhazgpu admin nodes'?"),
        (["nods"], "No such command 'nods'. Did you mean 'canhazgpu admin nodes'?"),
        (
            ["admin", "status"],
            "No such command 'status'. Did you mean 'canhazgpu agent status'"
            " or 'canhazgpu status'?",
        ),
        (["list"], "No such command 'list'. Did you mean 'canhazgpu status'?"),
        (["help"], "No such command 'help'. Did you mean 'canhazgpu --help'?"),
        (["qwertyuiop"], "No such command 'qwertyuiop'."),
        (["st\x1b[2J"], "No such command 'st\\x1b[2J'."),
        (
            ["re"],
            "No such command 're'. Did you mean 'canhazgpu release', 'canhazgpu report' or"
            " 'canhazgpu reserve'?",
        ),
        (
            ["--json", "status"],
            "No such option '--json': it goes after the command, as in 'canhazgpu status --json'",
        ),
        (
            ["-j", "admin", "nodes"],
            "No such option '-j': it goes after the command, as in 'canhazgpu admin nodes -j'",
        ),
        (
            ["hooks", "--jsn", "install"],
            "No such option '--jsn': it goes after the command, as in"
            " 'canhazgpu hooks install --json'",
        ),
        (
            ["status", "--config", "x"],
            "No such option '--config': it goes before the command, as in"
            " 'canhazgpu --config … status'",
        ),
        (["validate", "--mem", "3"], "No such option '--mem'. Did you mean '--memory-threshold'?"),
        (["reserve", "-N", "x"], "No such option '-N'. Did you mean '-n'?"),
        (["run", "--zzz", "--", "true"], "No such option '--zzz'."),
        (["run", "-z", "--", "true"], "No such option '-z'."),
    ],
)
def test_what_is_said(arguments: list[str], told: str) -> None:
    assert error(*arguments) == told


def test_every_group_suggests() -> None:
    groups = [one for one in all_commands().values() if isinstance(one, click.Group)]

    assert [one.name for one in groups if not isinstance(one, CommandGroup)] == []


def test_a_command_is_not_taken_for_a_mistake() -> None:
    assert CliRunner().invoke(cli, ["config", "show"], obj=App(environ={})).exit_code == 0


@pytest.mark.parametrize("word", ["", "-", "--", "\0", "é" * 9, "x" * 100_000])
def test_garbage_is_like_nothing(word: str) -> None:
    assert similar_words(word, ("status", "--json", "-j")) == []


def test_a_long_word_is_cut() -> None:
    assert len(error("x" * 100_000)) < MAX_SHOWN_CHARS + 40
    assert len(error("status", "--" + "x" * 100_000)) < MAX_SHOWN_CHARS + 40
