"""`canhazgpu hooks`: install, check and remove the scripts that Slurm runs."""

from __future__ import annotations

import click

from canhazgpu.cli.command_group import CommandGroup
from canhazgpu.cli.commands.hooks.check import check
from canhazgpu.cli.commands.hooks.install import install
from canhazgpu.cli.commands.hooks.render import render
from canhazgpu.cli.commands.hooks.uninstall import uninstall
from canhazgpu.cli.exit_codes import exit_codes


@click.group(cls=CommandGroup, epilog=exit_codes())
def hooks() -> None:
    """Install, check and remove the scripts that Slurm runs for each job.

    \b
    Examples:
      canhazgpu hooks install --dry-run
      canhazgpu hooks check
      canhazgpu hooks render --output ./hooks
    """  # noqa: D301 - click reads the character: keep these lines


for command in (check, install, render, uninstall):
    hooks.add_command(command)
