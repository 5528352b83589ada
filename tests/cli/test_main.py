"""The root command: help everywhere, global options, errors, and what is not imported."""

from __future__ import annotations

import os
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner
from command_tree import all_commands

from canhazgpu.cli.app import App
from canhazgpu.cli.main import cli


@pytest.mark.parametrize(
    "path", list(all_commands()), ids=lambda path: " ".join(path) or "canhazgpu"
)
def test_every_command_has_help_with_an_example(path: tuple[str, ...]) -> None:
    # A configuration that cannot be read must not keep anyone from the help.
    result = CliRunner().invoke(cli, ["--config", "/nonexistent", *path, "--help"])

    assert result.exit_code == 0
    assert "Example" in result.stdout
    assert "  canhazgpu " in result.stdout
    assert "\b" not in result.stdout


def test_the_root_lists_all_commands_with_their_help() -> None:
    shown = CliRunner().invoke(cli, ["--help"]).stdout
    listed = shown.partition("Commands:")[2].partition("\n  Exit codes:")[0].splitlines()

    names = cli.list_commands(click.Context(cli))
    assert [line.split()[0] for line in listed if line.strip()] == names
    assert all(len(line.split()) > 2 for line in listed if line.strip())


def test_version() -> None:
    result = CliRunner().invoke(cli, ["--version"])

    assert (result.exit_code, result.stdout.split()[0]) == (0, "canhazgpu")


@pytest.mark.parametrize("given", ["nonsense", "store.url", "url=x", "=x"])
def test_a_malformed_setting_is_refused(given: str) -> None:
    result = CliRunner().invoke(cli, ["--set", given, "config", "show"])

    assert result.exit_code == 2
    assert "SECTION.KEY=VALUE" in result.stderr


def test_an_unknown_command_is_refused() -> None:
    assert CliRunner().invoke(cli, ["nonsense"], obj=App()).exit_code == 2


def python(code: str, **environ: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join(path for path in sys.path if path)
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": paths, **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.slow
def test_status_imports_no_templates_and_the_command_line_no_store() -> None:
    loaded = python(
        "import sys; from canhazgpu.cli.main import cli; from canhazgpu.cli.commands import status;"
        "print([name for name in ('redis', 'jinja2', 'pynvml') if name in sys.modules])"
    )

    assert loaded.stdout.strip() == "[]", loaded.stderr


@pytest.mark.slow
def test_a_closed_pipe_is_silent() -> None:
    code = (
        "import os, sys; r, w = os.pipe(); os.close(r); os.dup2(w, 1); sys.argv[1:] = "
        "['config', 'show']; from canhazgpu.cli.main import main; main()"
    )

    assert python(code).stderr == ""


def test_an_encoding_without_the_characters_does_not_end_the_program() -> None:
    code = (
        "import sys; sys.argv[1:] = ['--set', 'node.name=漢', 'config', 'show'];"
        "from canhazgpu.cli.main import main; main()"
    )

    done = python(code, PYTHONIOENCODING="ascii", PYTHONUTF8="0")

    assert (done.returncode, done.stderr) == (0, "")
