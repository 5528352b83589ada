"""`canhazgpu agent`: run and show the node's agent, which answers Slurm's hooks."""

from __future__ import annotations

import click

from canhazgpu.cli.command_group import CommandGroup
from canhazgpu.cli.commands.agent.install import install
from canhazgpu.cli.commands.agent.release_driver import release_driver
from canhazgpu.cli.commands.agent.reload import reload
from canhazgpu.cli.commands.agent.run import run
from canhazgpu.cli.commands.agent.status import status
from canhazgpu.cli.commands.agent.uninstall import uninstall
from canhazgpu.cli.exit_codes import exit_codes
from canhazgpu.errors import AgentError, NodeStateError


@click.group(cls=CommandGroup, epilog=exit_codes(AgentError, NodeStateError))
def agent() -> None:
    """Install, run and show the node's agent: the process that answers Slurm's hooks.

    With an agent a hook takes tens of milliseconds. Without one, hooks do the same work in
    their own processes.

    \b
    Examples:
      canhazgpu agent install
      canhazgpu agent status --json
      canhazgpu agent release-driver && nvidia-smi --gpu-reset -i 3
    """  # noqa: D301 - click reads the character: keep these lines


for command in (install, release_driver, reload, run, status, uninstall):
    agent.add_command(command)
