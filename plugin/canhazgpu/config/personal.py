"""The defaults of a person without root, on a host that root has not set up.

There the directories below ``/run`` and ``/var/lib`` cannot be made. The user's own stand in for
them, where the XDG base directory specification puts such files
(https://specifications.freedesktop.org/basedir-spec/latest/). A home may be shared by several
hosts, so each host has a directory of its own in it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from canhazgpu.config.environment import AGENT_SOCKET_VARIABLE
from canhazgpu.config.node_sections import DEFAULT_MARKER_DIR, DEFAULT_STATE_DIR
from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.path_presence import may_exist

PROGRAM = "canhazgpu"
ROOTS_DIRECTORIES = (Path(DEFAULT_STATE_DIR), Path(DEFAULT_MARKER_DIR).parent)
"""Only root can make them. Where one exists, an agent, hooks or a store of root's serve this host,
or did."""


@dataclass(frozen=True, slots=True)
class PersonalDefaults:
    """A user's own configuration file, None without one, and the user's defaults by key."""

    file: Path | None
    values: tuple[tuple[str, str], ...]


def personal_defaults(environ: Mapping[str, str], system_file: Path) -> PersonalDefaults | None:
    """Return the defaults of this process's user, None where those of the host hold.

    The host's hold for root, where `system_file` exists or one of `ROOTS_DIRECTORIES`, where the
    environment names an agent, and for a user without a home.
    """
    home = environ.get("HOME", "")
    if os.geteuid() == 0 or AGENT_SOCKET_VARIABLE in environ or not home.startswith("/"):
        return None
    if any(map(may_exist, (system_file, *ROOTS_DIRECTORIES))):
        return None
    file = _directory(environ, "XDG_CONFIG_HOME", f"{home}/.config") / "config.toml"
    state = _directory(environ, "XDG_STATE_HOME", f"{home}/.local/state")
    kept = state / os.uname().nodename.partition(".")[0]
    # Without a directory that a reboot empties: records of an earlier boot are told by its id.
    runtime = _directory(environ, "XDG_RUNTIME_DIR", str(kept / "run"))
    values = {
        "store.embedded_dir": kept / "store",
        "node.state_dir": runtime,
        "node.marker_dir": kept / "served",
    }
    own = tuple((path, str(value)) for path, value in values.items())
    return PersonalDefaults(file if may_exist(file) else None, own)


def _directory(environ: Mapping[str, str], variable: str, otherwise: str) -> Path:
    """Return the program's directory there; a relative path in the variable does not count."""
    named = environ.get(variable, "")
    return Path(named if named.startswith("/") else otherwise) / PROGRAM
