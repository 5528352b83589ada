"""`canhazgpu agent status`: what the node's agent is, and what it did since its start."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from canhazgpu.cli.app import App
from canhazgpu.cli.exit_codes import exit_codes
from canhazgpu.cli.options.agent import own_node_option
from canhazgpu.cli.options.common import json_option
from canhazgpu.cli.terminal.output import print_sanitized
from canhazgpu.durations import duration_text
from canhazgpu.errors import AgentError
from canhazgpu.status.json_format import iso_time


@click.command(epilog=exit_codes(AgentError))
@own_node_option
@json_option
@click.pass_obj
def status(app: App, node: str | None, as_json: bool) -> None:
    """Show this node's agent: its release, the requests that it served, its last faults.

    Everybody may ask. Without an agent, Slurm's hooks do their work in their own processes.

    \b
    Examples:
      canhazgpu agent status
      canhazgpu agent status --json
    """  # noqa: D301 - click reads the character: keep these lines
    from canhazgpu.agent.client import call_at  # noqa: PLC0415 - not for the help
    from canhazgpu.agent.wire.interface import STATUS  # noqa: PLC0415

    found = call_at(_socket(app, node), STATUS)
    if as_json:
        click.echo(json.dumps(_with_iso_times(found), indent=2))
        return
    for line in _lines(found, time.time()):
        print_sanitized(line)


def _socket(app: App, node: str | None) -> Path:
    """Return the agent's socket: as commands find it, else by the configuration."""
    from canhazgpu.agent.agent_socket import agent_socket  # noqa: PLC0415 - not for the help
    from canhazgpu.agent.socket_files import people_socket  # noqa: PLC0415
    from canhazgpu.node.identity import node_name, state_dir  # noqa: PLC0415

    is_configured = node is not None or app.overrides
    if not is_configured and (found := agent_socket(app.environ, app.config_file or "")):
        return Path(found)
    config = app.effective_config().config
    name = node or node_name(config.node, app.environ)
    return people_socket(state_dir(config.node, name))


def _with_iso_times(found: Mapping[str, Any]) -> dict[str, Any]:
    changed: dict[str, Any] = {"started_at": iso_time(found["started_at"])}
    if "release_since" in found:
        changed["release_since"] = iso_time(found["release_since"])
    if fault := found.get("upgrade_fault"):
        changed["upgrade_fault"] = _with_iso_time(fault)
    return {**found, **changed, "faults": [_with_iso_time(one) for one in found["faults"]]}


def _with_iso_time(fault: Mapping[str, Any]) -> dict[str, Any]:
    return {**fault, "at": iso_time(fault["at"])}


def _lines(found: Mapping[str, Any], now: float) -> Iterator[str]:
    kind = "reader agent" if found.get("role") == "reader" else "agent"
    yield (
        f"{kind} of {found['node']}: release {found['release']}, interface {found['interface']},"
        f" PID {found['pid']}, up {duration_text(now - found['started_at'])}"
    )
    served = ", ".join(f"{name} {count}" for name, count in sorted(found["served"].items()))
    yield f"served: {served or 'nothing yet'}; refused: {found['refused']}"
    yield f"requests under way: {found['children']}"
    if executions := found.get("executions"):
        since_s = now - found["release_since"]
        yield f"executed anew: {executions}, the last time {duration_text(since_s)} ago"
    if fault := found.get("upgrade_fault"):
        yield f"the installed release is not taken: {fault['text']}"
    for one in found["faults"]:
        yield f"fault {duration_text(now - one['at'])} ago: {one['text']}"
    if not found["faults"]:
        yield "no faults"
