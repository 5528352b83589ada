"""The node's agent, as `hooks check`, `hooks install` and `hooks uninstall` see it."""

from __future__ import annotations

from pathlib import Path

from canhazgpu.agent.client import call
from canhazgpu.agent.socket_files import people_socket
from canhazgpu.agent.unit_files import installed_unit_files
from canhazgpu.agent.wire.interface import STATUS
from canhazgpu.cli.version import VERSION
from canhazgpu.errors import AgentError
from canhazgpu.path_presence import may_exist
from canhazgpu.schedulers.slurm.site.state import AgentState
from canhazgpu.templates.agent_units import STORE_UNIT


def installed_units(root: Path) -> list[str]:
    """Return the names of the agents' units that canhazgpu has installed."""
    return [
        one.target.name
        for one in installed_unit_files(root)
        if one.is_unit and one.text is not None and one.target.name != STORE_UNIT
    ]


def agent_state(state_dir: Path, node: str) -> AgentState:
    """Ask the agent of this node what it is."""
    mine = (f"canhazgpu-agent@{node}.service", "canhazgpu-agent.service")
    unit = next((one for one in mine if one in installed_units(Path("/"))), "")
    try:
        found = call(state_dir, STATUS)
        not_taken = (found.get("upgrade_fault") or {}).get("text", "")
        return AgentState(VERSION, str(found["release"]), unit=unit, not_taken=not_taken)
    except AgentError as exc:
        # A socket that nobody answers is left by an agent that was killed, or is stopped.
        left = may_exist(people_socket(state_dir))
        return AgentState(VERSION, fault=str(exc) if left else None, unit=unit)


def install_hint(root: Path) -> str:
    """Return what `hooks install` says of the agent, "" where one is installed."""
    if installed_units(root):
        return ""
    option = f" --root {root}" if root != Path("/") else ""
    return (
        "Hooks take a fraction of the time where the node's agent runs:"
        f" 'canhazgpu agent install{option}'."
    )
