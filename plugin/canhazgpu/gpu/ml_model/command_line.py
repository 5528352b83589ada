"""Parse a command line into options and values, also inside wrappers and shell scripts; pure.

The options of wrappers need not be known: programs and options are searched at every position. The
script of ``sh -c`` is parsed as command lines of its own.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence

from canhazgpu.frozen_dataclass import dataclass

MAX_SCRIPT_CHARS = 8192
"""Characters of a shell script that are parsed."""
MAX_SHELL_DEPTH = 3

_SHELLS = frozenset({"sh", "bash", "dash", "zsh", "ksh", "ash"})
_SCRIPT_OPTION = re.compile(r"-[a-z]*c[a-z]*")
_SECRET_OPTION = re.compile(
    r"(?:^|-)(?:token|keys?|api-?keys?|passwords?|passwd|pass|secrets?|credentials?|auth)(?:-|$)"
)
SWITCH_BY_CONVENTION = re.compile(
    r"(?:enable|disable|no|enforce|skip|use|allow)-.*|trust-remote-code|help|h|version"
)
"""Options that take no value, unless their program's documentation says otherwise."""
_BOOLEAN_VALUES = frozenset({"true", "false"})
_ATTACHED_VALUE = re.compile(r"-[A-Za-z]\d+")


@dataclass(frozen=True, slots=True)
class OptionTypes:
    """How many values a program's options take; one where nothing is said.

    `switches` take none, `lists` all until the next option. `valued` take one although they look
    like switches.
    """

    switches: frozenset[str] = frozenset()
    lists: frozenset[str] = frozenset()
    valued: frozenset[str] = frozenset()

    def is_switch(self, name: str) -> bool:
        """Tell whether the option takes no value."""
        if name in self.switches or name in self.valued or name in self.lists:
            return name in self.switches
        return SWITCH_BY_CONVENTION.fullmatch(name) is not None

    def is_list(self, name: str) -> bool:
        """Tell whether the option may take several values; those for secrets may."""
        return name in self.lists or _SECRET_OPTION.search(name) is not None


ONE_VALUE_EACH = OptionTypes()


@dataclass(frozen=True, slots=True)
class Option:
    """An option and its value; the name is in lower case, without leading dashes: ``model-id``."""

    name: str
    value: str


def program_name(argument: str) -> str:
    """Return the program that an argument names: ``vllm`` for ``/opt/venv/bin/vllm``.

    A package that is run as a script, ``…/lm_eval/__main__.py``, is named by its folder.
    """
    name = argument.removesuffix("/__main__.py").rpartition("/")[2]
    return name.removesuffix(".py")


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


def list_option_values(arguments: Sequence[str]) -> Iterator[Option]:
    """Yield each value of the options, also where one has several, ``-a one=1 two=2``."""
    owner = ""
    for argument in arguments:
        if argument.startswith("-"):
            name, equals, value = argument.partition("=")
            owner = _normal_option_name(name)
            if equals and value:
                yield Option(owner, value)
        elif owner:
            yield Option(owner, argument)


def key_value_settings(arguments: Sequence[str]) -> Iterator[Option]:
    """Yield the settings in the form of Hydra, ``model.name_or_path=VALUE``, by their full key."""
    for argument in arguments:
        key, equals, value = argument.lstrip("+").partition("=")
        if equals and re.fullmatch(r"[a-z][a-z0-9_.]*", key):
            yield Option(key, value)


def positionals(arguments: Sequence[str], types: OptionTypes = ONE_VALUE_EACH) -> Iterator[str]:
    """Yield the positional arguments.

    The argument after an option counts as its value, except after a switch. After a switch only
    ``true`` and ``false`` do. All arguments after an option that takes a list count as its values,
    until the next option.
    """
    owner = ""
    after_switch = False
    for argument in arguments:
        if argument.startswith("-"):
            name, equals, _ = argument.partition("=")
            name = _normal_option_name(name)
            after_switch = types.is_switch(name)
            takes_none = equals or after_switch or _ATTACHED_VALUE.fullmatch(argument)
            owner = name if types.is_list(name) or not takes_none else ""
            continue
        if owner:
            owner = owner if types.is_list(owner) else ""
        elif not (after_switch and argument.lower() in _BOOLEAN_VALUES):
            yield argument
        after_switch = False


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
