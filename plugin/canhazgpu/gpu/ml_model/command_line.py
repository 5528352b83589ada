"""Parse a command line into options and values, also inside wrappers and shell scripts; pure.

The options of wrappers need not be known: programs and options are searched at every position. The
script of ``sh -c`` is parsed as command lines of its own.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

MAX_SCRIPT_CHARS = 8192
"""Characters of a shell script that are parsed."""
MAX_SHELL_DEPTH = 3

_SHELLS = frozenset({"sh", "bash", "dash", "zsh", "ksh", "ash"})
_SCRIPT_OPTION = re.compile(r"-[a-z]*c[a-z]*")
_SECRET_OPTION = re.compile(
    r"(?:^|-)(?:token|keys?|api-?keys?|passwords?|passwd|pass|secrets?|credentials?|auth)(?:-|$)"
)
_VALUELESS_OPTION = re.compile(r"(?:enable|disable|no|enforce|skip|use|allow)-.*|trust-remote-code")


@dataclass(frozen=True, slots=True)
class Option:
    """An option and its value; the name is in lower case, without leading dashes: ``model-id``."""

    name: str
    value: str


def program_name(argument: str) -> str:
    """Return the program that an argument names: ``vllm`` for ``/opt/venv/bin/vllm``."""
    return argument.rpartition("/")[2].removesuffix(".py")


def nested_command_lines(
    arguments: Sequence[str], depth: int = MAX_SHELL_DEPTH
) -> Iterator[tuple[str, ...]]:
    """Yield the command lines in this one's shell scripts, the innermost first; then itself."""
    for position, argument in enumerate(arguments[:-1]):
        if depth and program_name(argument).lstrip("-") in _SHELLS:
            for command in _split_commands(_shell_script(arguments[position + 1 :])):
                yield from nested_command_lines(command, depth - 1)
    yield tuple(arguments)


def option_values(arguments: Sequence[str]) -> Iterator[Option]:
    """Yield the options that have a value, ``--name VALUE`` or ``--name=VALUE``."""
    for position, argument in enumerate(arguments):
        if not argument.startswith("-"):
            continue
        name, equals, value = argument.partition("=")
        if not equals and position + 1 < len(arguments):
            value = arguments[position + 1]
        if value and (equals or not value.startswith("-")):
            yield Option(_normal_option_name(name), value)


def key_value_settings(arguments: Sequence[str]) -> Iterator[Option]:
    """Yield the settings in the form of Hydra: ``model.name_or_path=VALUE``."""
    for argument in arguments:
        key, equals, value = argument.lstrip("+").partition("=")
        if equals and re.fullmatch(r"[a-z][a-z0-9_.]*", key):
            yield Option(_normal_option_name(key.rpartition(".")[2]), value)


def first_positional(arguments: Sequence[str]) -> str | None:
    """Return the first positional argument, None where there is none for certain.

    An argument after an option counts as its value. After an option for a secret nothing is
    returned any more, because such an option can take several values.
    """
    owner = ""
    for argument in arguments:
        if argument.startswith("-"):
            name, equals, _ = argument.partition("=")
            name = _normal_option_name(name)
            takes_none = equals or _VALUELESS_OPTION.fullmatch(name)
            owner = name if _SECRET_OPTION.search(name) or not takes_none else ""
        elif not owner:
            return argument
        elif not _SECRET_OPTION.search(owner):
            owner = ""
    return None


def _normal_option_name(name: str) -> str:
    return name.lstrip("-").lower().replace("_", "-")


def _shell_script(arguments: Sequence[str]) -> str:
    """Return the script that a shell with these arguments runs by -c, else an empty text."""
    for position, argument in enumerate(arguments[:-1]):
        if not argument.startswith(("-", "+")):
            break
        if _SCRIPT_OPTION.fullmatch(argument):
            return arguments[position + 1][:MAX_SCRIPT_CHARS]
    return ""


def _split_commands(script: str) -> Iterator[list[str]]:
    text = script.replace("\\\n", " ").replace("\n", " ; ")
    lexer = shlex.shlex(text, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    lexer.commenters = ""
    command: list[str] = []
    try:
        for word in lexer:
            if set(word) <= set("();<>|&"):
                yield command
                command = []
            else:
                command.append(word)
    except ValueError:
        pass  # a quotation that does not end: the words before it count
    yield command
