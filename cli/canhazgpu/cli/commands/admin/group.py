"""`canhazgpu admin`: commands for administrators."""

from __future__ import annotations

import click

from canhazgpu.cli.command_group import CommandGroup
from canhazgpu.cli.commands.admin.forget import forget
from canhazgpu.cli.commands.admin.index import index
from canhazgpu.cli.commands.admin.nodes import nodes
from canhazgpu.cli.commands.admin.quarantine import quarantine
from canhazgpu.cli.commands.admin.release import release
from canhazgpu.cli.commands.admin.unquarantine import unquarantine
from canhazgpu.cli.exit_codes import exit_codes
from canhazgpu.cli.options.node import NODE_EXIT_CODES
from canhazgpu.errors import StoreError


@click.group(cls=CommandGroup, epilog=exit_codes(StoreError, others=NODE_EXIT_CODES))
def admin() -> None:
    """Look after nodes, reservations and GPUs; what changes them needs root.

    The check for root is a courtesy: what keeps others from the ledger are the rights
    that the store gives to those who connect (see store.url).

    \b
    Examples:
      canhazgpu admin nodes
      canhazgpu admin quarantine 3 --reason "fan is broken"
      canhazgpu admin release --user alice --reason "on holiday"
    """  # noqa: D301 - click reads the character: keep these lines


for command in (forget, index, nodes, quarantine, release, unquarantine):
    admin.add_command(command)
