"""What a person typed, and where it was typed, as a call of `Command` has it; pure.

Nothing here says who the person is: the kernel does. Variables of the caller's environment may
only change how something is printed, and tell a job's own devices to a command inside that job.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import field
from typing import Any

from canhazgpu.agent.wire.caller_variables import VARIABLES
from canhazgpu.agent.wire.framing import WireError
from canhazgpu.agent.wire.interface import Call
from canhazgpu.frozen_dataclass import dataclass

MAX_ARGUMENTS = 32 * 1024
"""More than a message has room for, if they are files' names: a run may have many."""
MAX_VARIABLE = 4096
MAX_SIZE = 10_000
"""The widest and highest terminal, in columns and lines."""
MAX_REQUEST = 64

COMPLETION = re.compile(r"[a-z]+_complete")
"""Shells' requests for values; what a shell's own script says is not for the agent."""
TIME_ZONE = re.compile(r"[A-Za-z0-9_+<-][A-Za-z0-9_+,.<>/:-]{0,63}")
"""A time zone's name or rule, and no path of a file that somebody else chose."""


@dataclass(frozen=True, slots=True)
class Terminal:
    """Where the output goes; sizes in columns and lines, None where that is no terminal."""

    width: int | None = None
    height: int | None = None
    reads_terminal: bool = False
    errors_on_terminal: bool = False


@dataclass(frozen=True, slots=True)
class CommandLine:
    """The words after the program's name, the caller's terminal and these of its variables.

    `request` tells one request of a process from its others: the same one, asked again, gets the
    same grant.
    """

    arguments: tuple[str, ...]
    terminal: Terminal = Terminal()
    variables: Mapping[str, str] = field(default_factory=dict)
    request: str = ""


def command_line_of(call: Call) -> CommandLine:
    """Return what a call of `Command` says; raises `WireError` with the parameter's name."""
    given = call.parameters
    return CommandLine(
        _arguments(given.get("arguments")),
        _terminal(given.get("terminal")),
        _variables(given.get("variables", {})),
        _request(given.get("request", "")),
    )


def _arguments(given: object) -> tuple[str, ...]:
    if not isinstance(given, list) or len(given) > MAX_ARGUMENTS:
        raise WireError("arguments")
    if not all(isinstance(one, str) and "\0" not in one for one in given):
        raise WireError("arguments")
    return tuple(given)


def _terminal(given: object) -> Terminal:
    if given is None:
        return Terminal()
    if not isinstance(given, dict):
        raise WireError("terminal")
    return Terminal(
        _size(given.get("width")),
        _size(given.get("height")),
        _flag(given.get("reads_terminal")),
        _flag(given.get("errors_on_terminal")),
    )


def _size(given: object) -> int | None:
    if given is None:
        return None
    if not isinstance(given, int) or isinstance(given, bool) or not 0 < given <= MAX_SIZE:
        raise WireError("terminal")
    return given


def _flag(given: object) -> bool:
    if not (given is None or isinstance(given, bool)):
        raise WireError("terminal")
    return bool(given)


def _variables(given: object) -> dict[str, str]:
    if not isinstance(given, dict):
        raise WireError("variables")
    found = {}
    for name in VARIABLES:
        value = given.get(name)
        if value is None:
            continue
        if not isinstance(value, str) or "\0" in value or len(value) > MAX_VARIABLE:
            raise WireError("variables")
        found[name] = value
    if not COMPLETION.fullmatch(found.get("_CANHAZGPU_COMPLETE", "bash_complete")):
        del found["_CANHAZGPU_COMPLETE"]
    if ".." in found.get("TZ", "") or not TIME_ZONE.fullmatch(found.get("TZ", "UTC")):
        del found["TZ"]
    return found


def _request(given: Any) -> str:
    if not isinstance(given, str) or len(given) > MAX_REQUEST:
        raise WireError("request")
    return given
