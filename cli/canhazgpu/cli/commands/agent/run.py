"""`canhazgpu agent run`: be the node's agent until SIGTERM."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from canhazgpu.cli import version
from canhazgpu.cli.app import App
from canhazgpu.cli.exit_codes import exit_codes
from canhazgpu.cli.options.agent import own_node_option
from canhazgpu.errors import NodeStateError


@click.command(
    epilog=exit_codes(NodeStateError, others={0: "ended by SIGTERM, no request is under way"})
)
@own_node_option
@click.option(
    "--check",
    is_flag=True,
    help="Only find out whether the agent would start from this installation, and end.",
)
@click.pass_obj
def run(app: App, node: str | None, check: bool) -> None:
    """Answer Slurm's hooks on this node, in the foreground, until SIGTERM.

    For any supervisor, as root. It tells systemd when it serves (Type=notify). After SIGTERM it
    lets nobody in, and ends when the requests that are under way have ended. A second agent of
    the same node is refused. It reads its own limits, the keys agent.*, when it starts; each
    request reads the rest of the configuration anew.

    After an upgrade of its environment, and at SIGHUP, it becomes the installed release: as the
    same process, without a connection refused. First that release has to pass --check.

    \b
    Examples:
      canhazgpu agent run
      canhazgpu agent run --node gpu01
      canhazgpu agent run --check
    """  # noqa: D301 - click reads the character: keep these lines
    from canhazgpu.agent.listener.process import check_start, run_agent  # noqa: PLC0415 - imports all that hooks need
    from canhazgpu.cli.through_agent.runner import ClickRunner  # noqa: PLC0415
    from canhazgpu.node.users import require_root  # noqa: PLC0415

    require_root("run the node's agent")
    environ = {**app.environ, **({"SLURMD_NODENAME": node} if node else {})}
    # Of a copy: the agent's children have environments of their own.
    reader = replace(app, environ=environ)
    if (file := reader.effective_config().file) is not None:
        environ["CANHAZGPU_CONFIG"] = str(file)
    if check:
        check_start(lambda: reader.effective_config().config, ClickRunner())
        click.echo(f"release {version.VERSION} starts")
        return
    run_agent(
        lambda: reader.effective_config().config,
        environ,
        version.VERSION,
        ClickRunner(),
        Path(version.__file__),
    )
