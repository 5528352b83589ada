"""`canhazgpu store`: commands about the store itself."""

from __future__ import annotations

import click

from canhazgpu.cli.command_group import CommandGroup
from canhazgpu.cli.commands.store.acl import acl
from canhazgpu.cli.exit_codes import exit_codes
from canhazgpu.errors import StoreError


@click.group(cls=CommandGroup, epilog=exit_codes(StoreError))
def store() -> None:
    """Set up the store (Redis or Valkey): its users and their rights.

    \b
    Examples:
      canhazgpu store acl --node gpu[01-16] --logins ./logins
      canhazgpu store acl --check
    """  # noqa: D301 - click reads the character: keep these lines


store.add_command(acl)
