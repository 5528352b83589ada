"""Where the agent of this host is to be found, without the configuration if that can be.

The installed program asks this first, so it imports next to nothing. The path decides nothing about
anybody: whoever names another one asks another agent, which has to be root's.
"""

from __future__ import annotations

import posix

from canhazgpu.schedulers.slurm.environment import NODE_NAME

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

SOCKET_VARIABLE = "CANHAZGPU_AGENT_SOCKET"
CONFIG_VARIABLE = "CANHAZGPU_CONFIG"
STATE_DIR_VARIABLE = "CANHAZGPU_NODE_STATE_DIR"
NODE_NAME_VARIABLES = ("CANHAZGPU_NODE_NAME", NODE_NAME)
DEFAULT_CONFIG = "/etc/canhazgpu/config.toml"
DEFAULT_STATE_DIR = "/run/canhazgpu"
DIRECTORY = "agent"
PEOPLE_SOCKET = "agent.sock"
IN_STATE_DIR = f"{DIRECTORY}/{PEOPLE_SOCKET}"


def agent_socket(environ: Mapping[str, str], config_file: str = "", node: str = "") -> str:
    """Return the path of the agent's socket, "" where there is none.

    `config_file` is the option --config. `node` is a node of this host that the caller means, where
    there are several, and each has a directory of its own.
    """
    if named := environ.get(SOCKET_VARIABLE):
        return named
    config = config_file or environ.get(CONFIG_VARIABLE, "")
    if not config and STATE_DIR_VARIABLE not in environ:
        usual = f"{DEFAULT_STATE_DIR}/{IN_STATE_DIR}"
        if _exists(usual):
            return usual
        config = DEFAULT_CONFIG
    return _configured(environ, config, node)


def absent_agent(environ: Mapping[str, str]) -> str:
    """Return the socket of an agent that this host has and that does not run, "" for none."""
    named = environ.get(SOCKET_VARIABLE, "")
    path = named or f"{DEFAULT_STATE_DIR}/{IN_STATE_DIR}"
    directory = path.rpartition("/")[0]
    # The directory stays when an agent ends.
    return path if named or (_exists(directory) and not _exists(path)) else ""


def _configured(environ: Mapping[str, str], config: str, node: str) -> str:
    section = _node_section(config) if config and _exists(config) else {}
    directory = environ.get(STATE_DIR_VARIABLE) or section.get("state_dir") or DEFAULT_STATE_DIR
    own = next(filter(None, map(environ.get, NODE_NAME_VARIABLES)), "") or section.get("name", "")
    for name in (node, own or posix.uname().nodename.partition(".")[0]):
        path = f"{directory.replace('%n', name)}/{IN_STATE_DIR}"
        if name and _exists(path):
            return path
    return ""


def _node_section(path: str) -> Mapping[str, str]:
    """Return the strings of the section ``[node]``; nothing of a file that cannot be read."""
    import tomllib  # noqa: PLC0415 - hardly ever needed

    try:
        with open(path, "rb") as stream:  # noqa: PTH123 - without pathlib
            section = tomllib.load(stream).get("node", {})
    except (OSError, ValueError):
        return {}
    found = section if isinstance(section, dict) else {}
    return {name: text for name, text in found.items() if isinstance(text, str)}


def _exists(path: str) -> bool:
    try:
        posix.stat(path)
    except OSError:
        return False
    return True
