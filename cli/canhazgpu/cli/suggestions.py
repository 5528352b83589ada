"""What somebody may have meant who mistyped a command or an option."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import click

ARGUMENTS = "canhazgpu.arguments"
"""The program's arguments, in the contexts' `meta`."""

MAX_SUGGESTIONS = 3
SIMILARITY = 0.6
SIMILARITY_ELSEWHERE = 0.75
"""How much alike words must be, by `difflib`; those of another group more than the group's own."""

MAX_SHOWN_CHARS = 40
OTHER_WORDS = {
    "help": "canhazgpu --help",
    "list": "canhazgpu status",
    "ls": "canhazgpu status",
    "version": "canhazgpu --version",
}
"""What other programs call a command."""


def similar_words(word: str, words: Iterable[str], similarity: float = SIMILARITY) -> list[str]:
    """Return which of the words are much like this one, the most similar first.

    Upper and lower case, dashes before the word, and ``_`` for ``-`` do not count. The beginning of
    a word is like the word.
    """
    from difflib import get_close_matches  # noqa: PLC0415 - only after a mistake

    meant = _plain(word[:MAX_SHOWN_CHARS])
    if not meant:
        return []
    plain: dict[str, list[str]] = {}
    for one in dict.fromkeys(words):
        plain.setdefault(_plain(one), []).append(one)
    if meant in plain:
        return [one for one in plain[meant] if one != word]
    close = get_close_matches(meant, plain, n=MAX_SUGGESTIONS, cutoff=similarity)
    begun = [one for one in plain if one.startswith(meant)]
    found = [original for one in dict.fromkeys((*begun, *close)) for original in plain[one]]
    return [one for one in found if one != word][:MAX_SUGGESTIONS]


def unknown_command_text(context: click.Context, name: str) -> str:
    """Return the error for an unknown command of the context's group, with what may be meant.

    Where the group has nothing like it, commands elsewhere are suggested: ``admin nodes`` for
    ``nodes``.
    """
    text = f"No such command {name[:MAX_SHOWN_CHARS]!r}."
    paths = list(_command_paths(context.find_root()))
    group = context.command_path
    own = {path.rpartition(" ")[2]: path for path in paths if path.rpartition(" ")[0] == group}
    if meant := similar_words(name, own):
        return f"{text} {_did_you_mean([own[one] for one in meant])}"
    elsewhere: dict[str, list[str]] = {}
    for path in paths:
        elsewhere.setdefault(path.rpartition(" ")[2], []).append(path)
    exact = elsewhere.get(name.lower(), [])
    similar = similar_words(name, elsewhere, SIMILARITY_ELSEWHERE)
    near = [path for one in similar for path in elsewhere[one]]
    other = [OTHER_WORDS[name.lower()]] if name.lower() in OTHER_WORDS else []
    found = exact or other or near
    return f"{text} {_did_you_mean(found[:MAX_SUGGESTIONS])}" if found else text


def explained_option_error(error: click.NoSuchOption) -> click.UsageError:
    """Return the error with the option that may be meant, or with the place where it belongs."""
    context = error.ctx
    if context is None:
        return error
    text = f"No such option {error.option_name[:MAX_SHOWN_CHARS]!r}"
    own, root = _option_names(context.command), context.find_root()
    of_program = _option_names(root.command) if context is not root else ()
    below = dict(_commands(context.command, context.command_path))
    of_commands = tuple(name for one in below.values() for name in _option_names(one))
    name = error.option_name
    if meant := similar_words(name, own):
        text += f". {_did_you_mean(meant)}"
    elif before := _exact_or_similar(name, of_program):
        example = f"{root.command_path} {before} … {context.info_name}"
        text += f": it goes before the command, as in '{example}'"
    elif after := _exact_or_similar(name, of_commands):
        path = _command_with(after, below, context.meta.get(ARGUMENTS, ()))
        text += f": it goes after the command, as in '{path} {after}'"
    else:
        text += "."
    return click.UsageError(text, context)


def _exact_or_similar(name: str, known: Sequence[str]) -> str | None:
    return name if name in known else next(iter(similar_words(name, known)), None)


def _plain(word: str) -> str:
    return word.lower().replace("_", "-").strip("-")


def _did_you_mean(paths: Sequence[str]) -> str:
    *others, last = (f"'{path}'" for path in paths)
    return f"Did you mean {', '.join(others)}{' or ' if others else ''}{last}?"


def _command_paths(root: click.Context) -> Iterator[str]:
    for path, _ in _commands(root.command, root.command_path):
        yield path


def _commands(group: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    if not isinstance(group, click.Group):
        return
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is not None and not command.hidden:
            yield f"{path} {name}", command
            yield from _commands(command, f"{path} {name}")


def _option_names(command: click.Command) -> tuple[str, ...]:
    options = (one for one in command.params if isinstance(one, click.Option) and not one.hidden)
    return (*(name for one in options for name in (*one.opts, *one.secondary_opts)), "--help")


def _command_with(
    option: str, commands: Mapping[str, click.Command], arguments: Sequence[str]
) -> str:
    """Return the path of a command that has the option: the one in the arguments, if any."""
    having = [path for path, command in commands.items() if option in _option_names(command)]
    words = set(arguments)
    return min(having, key=lambda path: (not set(path.split()[1:]) <= words, path.count(" ")))
