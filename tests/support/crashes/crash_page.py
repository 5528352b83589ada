"""Processes that are killed, stopped or failed at their N-th step; see `interposer.c`."""

from __future__ import annotations

import mmap
import struct
import subprocess
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from run_files import made_once

SOURCE = Path(__file__).with_name("interposer.c")
LIBRARY = "interposer.so"
_HEAD = struct.Struct("32s8i")
_NAME_BYTES = 12
_NAMES = 4096
_SIZE = _HEAD.size + _NAMES * _NAME_BYTES


class Action(IntEnum):
    """What happens at the step."""

    COUNT = 0
    KILL = 1
    STOP = 2
    FAIL_ONCE = 3
    FAIL_ALWAYS = 4
    """This step and those after it fail."""


class Kind(IntEnum):
    """What kinds of steps fail."""

    FILES = 1
    SOCKETS = 2
    PROCESSES = 4


@dataclass(frozen=True, slots=True)
class Step:
    """One step, by the name of its call and its `Kind`; 0 for what does not fail."""

    name: str
    kind: int


@dataclass(frozen=True, slots=True)
class Crash:
    """What happens to a process, and at which of its steps; they count from 1."""

    action: Action
    step: int
    error: int = 0
    kinds: int = 0

    def __str__(self) -> str:
        return f"{self.action.name.lower()} at {self.step}"


NO_CRASH = Crash(Action.COUNT, 0)


def library() -> Path:
    """The compiled interposer, for LD_PRELOAD; made once in a test run."""
    return made_once("interposer", _compile) / LIBRARY


def _compile(directory: Path) -> None:
    options = ("-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-ldl")
    subprocess.run(["gcc", SOURCE, "-o", directory / LIBRARY, *options], check=True)


class CrashPage:
    """What a test shares with the process of a role that takes the page."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_bytes(bytes(_SIZE))
        path.chmod(0o666)
        with path.open("r+b") as stream:
            self._memory = mmap.mmap(stream.fileno(), _SIZE)

    def set(self, role: str, crash: Crash = NO_CRASH) -> None:
        """Lay a crash out for the next process of the role."""
        self._memory[_HEAD.size :] = bytes(_NAMES * _NAME_BYTES)
        self._put("", NO_CRASH)
        self._put(role, crash)

    def _put(self, role: str, crash: Crash) -> None:
        numbers = (crash.action, crash.step, crash.error, crash.kinds, 0, 0, 0, 0)
        self._memory[: _HEAD.size] = _HEAD.pack(role.encode(), *numbers)

    def _head(self) -> tuple[int, ...]:
        found: tuple[int, ...] = _HEAD.unpack(self._memory[: _HEAD.size])[5:]
        return found

    @property
    def pid(self) -> int:
        """Whose steps count; 0 as long as nobody has taken the page."""
        return self._head()[1]

    @property
    def steps(self) -> int:
        """How many steps the process has begun."""
        return self._head()[2]

    @property
    def is_hit(self) -> bool:
        """Whether what was laid out has happened."""
        return bool(self._head()[3])

    def taken_steps(self) -> list[Step]:
        """The steps that the process has begun, in their order."""
        content = self._memory[_HEAD.size :]
        cells = (content[at : at + _NAME_BYTES] for at in range(0, len(content), _NAME_BYTES))
        steps = [Step(cell[:-1].rstrip(b"\0").decode(), cell[-1]) for cell in cells]
        return steps[: min(self.steps, _NAMES)]


TAKE = """
import ctypes
ctypes.CDLL(None).crash_take({page!r}, {role!r})
"""


def take_program(page: CrashPage, role: str) -> str:
    """Python with which a process takes the page for this role."""
    return TAKE.format(page=str(page.path).encode(), role=role.encode())
