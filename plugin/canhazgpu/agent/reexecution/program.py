"""The program that the agent is, and the one that it is to become."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.node.state_files import read_if_owned, write_atomically

MODULE = ("-I", "-m", "canhazgpu.cli.main")
ASKED_FILE = ".program"
"""In the agent's directory: the Python of the environment that the agent is to be executed from."""


@dataclass(frozen=True, slots=True)
class Program:
    """What execve(2) takes; `arguments` begin with the program's own name."""

    python: str
    arguments: tuple[str, ...]

    def with_option(self, option: str) -> tuple[str, ...]:
        """Return the arguments with one more option of the command."""
        return (*self.arguments, option)


def own_program() -> Program:
    """Return this process's program, as its command line named it."""
    return Program(sys.executable, tuple(sys.orig_argv))


def program_of(python: str, words: Iterable[str]) -> Program:
    """Return the program of another environment; `words` follow the name of canhazgpu's program."""
    return Program(python, (python, *MODULE, *words))


def ask_for(directory: Path, python: str) -> None:
    """Leave the Python of the environment that the agent is to take. Raises `OSError`."""
    write_atomically(directory / ASKED_FILE, json.dumps({"python": python}).encode())


def take_asked(directory: Path) -> str:
    """Return which Python was left, "" for none; it is taken once."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        found = read_if_owned(directory / ASKED_FILE) or b"{}"
        (directory / ASKED_FILE).unlink(missing_ok=True)
        python = json.loads(found).get("python", "")
        if isinstance(python, str) and os.path.isabs(python):  # noqa: PTH117 - a text of a file
            return python
    return ""
