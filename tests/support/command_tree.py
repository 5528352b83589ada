"""Every command of `canhazgpu`, by its path: ``()`` for the program, ``("admin", "nodes")``."""

from __future__ import annotations

from collections.abc import Mapping

import click

from canhazgpu.cli.main import cli


def all_commands() -> Mapping[tuple[str, ...], click.Command]:
    found: dict[tuple[str, ...], click.Command] = {}

    def add(path: tuple[str, ...], command: click.Command) -> None:
        found[path] = command
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                below = command.get_command(context, name)
                assert below is not None
                add((*path, name), below)

    add((), cli)
    return found
