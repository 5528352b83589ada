"""`canhazgpu agent reload`: have the node's agent become this installation's release."""

from __future__ import annotations

import click

from canhazgpu.cli.app import App
from canhazgpu.cli.exit_codes import exit_codes
from canhazgpu.cli.options.agent import own_node_option, timeout_option
from canhazgpu.errors import AgentError, NodeStateError

DEFAULT_TIMEOUT_S = 80.0
"""Less than systemd gives a unit to reload (`DefaultTimeoutStartSec=`)."""


@click.command(epilog=exit_codes(AgentError, NodeStateError))
@own_node_option
@timeout_option(DEFAULT_TIMEOUT_S, "Longest wait for the agent.")
@click.pass_obj
def reload(app: App, node: str | None, timeout_s: float) -> None:
    """Have this node's agent become the release of this installation, and wait until it has.

    For root. The agent stays the same process and refuses nobody: requests that are under way,
    runs and those who wait for GPUs go on. It also reads the keys agent.* anew. If this release
    does not start, the agent stays what it is, and this command says why. An agent sees by itself
    that its own environment was upgraded; one of another environment needs this command.

    \b
    Examples:
      canhazgpu agent reload
      /opt/canhazgpu-0.2/bin/canhazgpu --config /etc/canhazgpu/config.toml agent reload
    """  # noqa: D301 - click reads the character: keep these lines
    from canhazgpu.agent.reexecution.reload import reload_agent  # noqa: PLC0415 - not for the help
    from canhazgpu.node.identity import node_name, state_dir  # noqa: PLC0415
    from canhazgpu.node.users import require_root  # noqa: PLC0415

    require_root("have the node's agent become another release")
    config = app.effective_config().config
    name = node or node_name(config.node, app.environ)
    found = reload_agent(state_dir(config.node, name), timeout_s)
    click.echo(f"the agent of {found['node']} is of release {found['release']}, PID {found['pid']}")
