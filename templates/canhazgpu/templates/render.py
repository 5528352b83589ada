"""Render the templates of the files for Slurm; a missing value is an error."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent

NODE_VARIABLE = '"$node"'
"""The node's name in the scripts. Each script whose paths need it sets and checks the variable."""


def shell(value: str) -> str:
    """Return the value quoted as one word of POSIX sh."""
    return shlex.quote(value)


def shell_path(value: str) -> str:
    """Return a path as one word of POSIX sh, in which ``%n`` becomes the script's ``$node``."""
    return NODE_VARIABLE.join(shlex.quote(part) if part else "" for part in value.split("%n"))


def unit_text(value: str) -> str:
    """Return the value with percent signs that are no specifiers of systemd's (systemd.unit(5))."""
    return value.replace("%", "%%")


def unit_word(value: str) -> str:
    """Return the value as one word of a line of systemd's: systemd.syntax(7), quoting."""
    escaped = unit_text(value).replace("\\", "\\\\").replace('"', '\\"')
    plain = all(letter.isalnum() or letter in "/._-@:+=%" for letter in value)
    return escaped if plain and value else f'"{escaped}"'


def unit_program(value: str) -> str:
    """Return a program's path for ExecStart=; a dollar sign in its line is no variable.

    systemd refuses quotes and backslashes in it, and not in an argument of env.
    """
    by_env = "/usr/bin/env " if set(value) & set("'\"\\") else ""
    return f"{':' if '$' in value else ''}{by_env}{unit_word(value)}"


def render(template: str, values: Mapping[str, object]) -> str:
    """Return the rendered template; raises `jinja2.UndefinedError` for a missing value."""
    return _environment().get_template(f"{template}.j2").render(values)


@functools.cache
def _environment() -> Environment:
    """Return the one of this process: it compiles each template once."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # noqa: PLC0415 - 40 ms

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        autoescape=False,  # noqa: S701 - shell and configuration text, quoted by the shell filters
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["shell"] = shell
    environment.filters["shell_path"] = shell_path
    environment.filters["unit_text"] = unit_text
    environment.filters["unit_word"] = unit_word
    environment.filters["unit_program"] = unit_program
    return environment
