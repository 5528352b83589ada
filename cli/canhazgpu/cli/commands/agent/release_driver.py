"""`canhazgpu agent release-driver`: have the agent let go of the GPUs' driver at once."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from canhazgpu.cli.app import App
from canhazgpu.cli.exit_codes import exit_codes
from canhazgpu.cli.options.agent import own_node_option, timeout_option
from canhazgpu.cli.options.common import json_option
from canhazgpu.cli.terminal.output import column_lines, print_sanitized
from canhazgpu.errors import AgentError

if TYPE_CHECKING:
    from canhazgpu.agent.scanner.device_holders import DeviceHolder

DEFAULT_TIMEOUT_S = 10.0
HEADER = ("PID", "USER", "COMMAND", "DEVICES")


@click.command("release-driver", epilog=exit_codes(AgentError))
@own_node_option
@timeout_option(DEFAULT_TIMEOUT_S, "Longest wait for a scan that is under way.")
@json_option
@click.pass_obj
def release_driver(app: App, node: str | None, timeout_s: float, as_json: bool) -> None:
    """Have this node's agent close the GPUs' devices, and wait until it has.

    For root, before a reset of a GPU or a change to MIG mode, which open devices block. The agent
    keeps them open while there is work, and for agent.driver_idle_s after it; its next scan opens
    them again. Other processes that have them open are listed: this command does not end them.

    \b
    Examples:
      canhazgpu agent release-driver && nvidia-smi --gpu-reset -i 3
      canhazgpu agent release-driver --json | jq '.others[].pid'
    """  # noqa: D301 - click reads the character: keep these lines
    from canhazgpu.agent.scanner.device_holders import device_holders  # noqa: PLC0415 - not for the help
    from canhazgpu.agent.scanner.driver_release import release_by_agent  # noqa: PLC0415
    from canhazgpu.agent.socket_files import SCANNER_SOCKET, agent_directory  # noqa: PLC0415
    from canhazgpu.node.identity import node_name, state_dir  # noqa: PLC0415
    from canhazgpu.node.users import require_root  # noqa: PLC0415

    require_root("have the agent let go of the driver")
    config = app.effective_config().config
    name = node or node_name(config.node, app.environ)
    socket_path = agent_directory(state_dir(config.node, name)) / SCANNER_SOCKET
    runs = release_by_agent(socket_path, timeout_s)
    others = device_holders()
    if as_json:
        click.echo(json.dumps(_to_dict(runs, others), indent=2))
        return
    for line in _lines(runs, others):
        print_sanitized(line)


def _lines(runs: bool, others: Sequence[DeviceHolder]) -> Iterator[str]:
    yield "the agent has no device open" if runs else "no agent runs on this node"
    if others:
        yield "open in other processes:"
        rows = [
            (str(one.pid), one.user or "?", one.name or "?", " ".join(one.devices))
            for one in others
        ]
        yield from column_lines(HEADER, rows)


def _to_dict(runs: bool, others: Sequence[DeviceHolder]) -> dict[str, object]:
    return {
        "agent_runs": runs,
        "others": [
            {"pid": one.pid, "user": one.user, "name": one.name, "devices": one.devices}
            for one in others
        ],
    }
