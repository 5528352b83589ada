"""A node whose name the store has for another cluster's machine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from canhazgpu.errors import ForeignNodeError

if TYPE_CHECKING:
    from canhazgpu.node.identity import NodeIdentity

REPLY = "FOREIGN "
"""How the scripts' error begins; the recorded identity follows, as JSON."""


def recorded_identity(reply: str) -> Mapping[str, str] | None:
    """Return the identity in a script's error, None for another error."""
    return parse_identity(reply.removeprefix(REPLY)) if reply.startswith(REPLY) else None


def parse_identity(text: str) -> Mapping[str, str] | None:
    """Return the identity that the store has recorded, None for no identity."""
    try:
        found = json.loads(text)
    except ValueError:
        return None
    if not isinstance(found, dict) or not all(isinstance(one, str) for one in found.values()):
        return None
    return found


def is_foreign(own: NodeIdentity, known: Mapping[str, str]) -> bool:
    """Return what common.lua decides: whether another cluster's other machine is recorded."""
    return known.get("cluster") != own.cluster and known.get("machine") != own.machine


def foreign_node_error(own: NodeIdentity, known: Mapping[str, str]) -> ForeignNodeError:
    """Return the error that says what is recorded, and what to do."""
    cluster, host = (known.get(name, "?")[:64] for name in ("cluster", "host"))
    return ForeignNodeError(
        f"the store has {own.node} as a node of cluster {cluster!r}, on the host {host!r}; here it"
        f" is a node of cluster {own.cluster!r}",
        next_step="give each cluster a store.prefix of its own; if the other one is gone:"
        f" 'canhazgpu admin forget {own.node}'",
    )
