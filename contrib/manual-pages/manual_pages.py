#!/usr/bin/env python3
"""Write a manual page for each command into cli/man, or check them with --check.

The texts are those of the commands' help.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import click

from canhazgpu.cli.main import cli
from canhazgpu.cli.version import RELEASE_DATE, VERSION
from help_text import Block, parse_exit_codes, parse_help
from references import ENVIRONMENT, FILES, Entries, entries_for, other_pages
from roff import bold, escaped, filled, italic, literal, paragraph, prose, section, tagged

DIRECTORY = Path(__file__).resolve().parents[2] / "cli" / "man"
PROGRAM = "canhazgpu"
NOTICE = r'.\" Generated from the help texts by "make docs"; changes here are lost.'

CommandPath = tuple[str, ...]
Commands = Mapping[CommandPath, click.Command]


def commands_below(
    command: click.Command, path: CommandPath = ()
) -> dict[CommandPath, click.Command]:
    """Return the command and all commands below it that are not hidden, by their paths."""
    found = {path: command}
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is not None and not below.hidden:
                found |= commands_below(below, (*path, name))
    return found


def all_pages(program: click.Command = cli) -> dict[str, str]:
    """Return the text of each page by the name of its file."""
    commands = commands_below(program)
    return {f"{page_name(path)}.1": page(path, commands) for path in commands}


def page_name(path: CommandPath) -> str:
    """Return the page's name, ``canhazgpu-admin-nodes``."""
    return "-".join((PROGRAM, *path))


def page(path: CommandPath, commands: Commands) -> str:
    """Return the manual page of the command at the path."""
    command, name = commands[path], page_name(path)
    context = _context(path, commands)
    told = parse_help(command.help or "")
    lines = (
        NOTICE,
        f'.TH "{escaped(name.upper())}" 1 {RELEASE_DATE} "{PROGRAM} {VERSION}" "User Commands"',
        *(".nh", ".ad l"),
        *section("NAME", filled(rf"{escaped(name)} \- {prose(told.summary)}")),
        *section("SYNOPSIS", filled(_synopsis(context))),
        *section("DESCRIPTION", _description(told.summary, told.description)),
        *section("COMMANDS", _commands(path, commands)),
        *section("OPTIONS", _options(context)),
        *section("EXIT STATUS", _tags(parse_exit_codes(command.epilog or ""))),
        *section("ENVIRONMENT", _tags(entries_for(ENVIRONMENT, path))),
        *section("FILES", _tags(entries_for(FILES, path))),
        *section("EXAMPLES", _blocks(told.examples)),
        *section("SEE ALSO", filled(", ".join(_see_also(path, commands)))),
    )
    return "\n".join(lines) + "\n"


def _context(path: CommandPath, commands: Commands) -> click.Context:
    context = None
    for length, name in enumerate((PROGRAM, *path)):
        command = commands[path[:length]]
        context = click.Context(command, info_name=name, parent=context, **command.context_settings)
    assert context is not None
    return context


def _synopsis(context: click.Context) -> str:
    pieces = context.command.collect_usage_pieces(context)
    return " ".join((bold(context.command_path), *map(italic, pieces)))


def _description(summary: str, blocks: tuple[Block, ...]) -> Iterator[str]:
    yield from filled(prose(f"{summary}."))
    yield from _blocks(blocks)


def _blocks(blocks: tuple[Block, ...]) -> Iterator[str]:
    for block in blocks:
        if not block.kept:
            yield from paragraph(prose(block.text))
            continue
        heading, *rest = block.lines
        if heading.rstrip(":") not in ("Example", "Examples"):
            yield from paragraph(prose(heading))
        yield from literal(rest)


def _commands(path: CommandPath, commands: Commands) -> Iterator[str]:
    for below, command in commands.items():
        if below and below[:-1] == path:
            summary = parse_help(command.help or "").summary
            yield from tagged(bold(below[-1]), f"{prose(summary)}. See {_reference(below)}.")


def _options(context: click.Context) -> Iterator[str]:
    for parameter in context.command.get_params(context):
        if not isinstance(parameter, click.Option):
            continue
        record = parameter.get_help_record(context)
        if record is not None:
            names, meaning = record
            yield from tagged(", ".join(map(_option, names.split(", "))), prose(meaning))
    if context.parent is not None:
        text = "Options of the program itself, as --config, stand before the command: see"
        yield from paragraph(f"{escaped(text)} {_reference(())}.")


def _option(text: str) -> str:
    name, _, value = text.partition(" ")
    return f"{bold(name)} {italic(value)}" if value else bold(name)


def _tags(entries: Entries) -> Iterator[str]:
    for name, meaning in entries:
        yield from tagged(bold(name), prose(meaning))


def _see_also(path: CommandPath, commands: Commands) -> Iterator[str]:
    """Return the pages of the group, of the commands in it and beside it, and of other programs."""
    group = path[:-1] if path else ()
    near = [one for one in commands if one != path and one[:-1] in (path, group)]
    for one in (*([group] if path and group not in near else []), *near):
        if one or path:
            yield _reference(one)
    for other in other_pages(path):
        name, _, number = other.partition("(")
        yield rf"{bold(name)}({number}"


def _reference(path: CommandPath) -> str:
    return f"{bold(page_name(path))}(1)"


def main() -> int:
    pages = all_pages()
    found = {file.name: file.read_text("utf-8") for file in DIRECTORY.glob("*")}
    old = sorted(name for name in pages.keys() | found.keys() if pages.get(name) != found.get(name))
    if "--check" in sys.argv[1:]:
        if old:
            print(f"old in cli/man: {', '.join(old)}; refresh with 'make docs'", file=sys.stderr)
        return int(bool(old))
    DIRECTORY.mkdir(exist_ok=True)
    for name in old:
        if name in pages:
            (DIRECTORY / name).write_text(pages[name], "utf-8")
        else:
            (DIRECTORY / name).unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
