"""Every Redis key, built in one place.

All keys of a node share the hash tag ``{NODE}``, so that one script touching them runs on one
Redis Cluster slot. The index of nodes is the only key that belongs to no node.
"""

from __future__ import annotations

import re
from dataclasses import astuple, dataclass

from canhazgpu.errors import InputError

PREFIX = "canhazgpu"
NODES = f"{PREFIX}:nodes"
"""Set of the names of all nodes that ever published a scan."""

_NODE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,252}")


@dataclass(frozen=True, slots=True)
class NodeKeys:
    """The keys of one node.

    In the order in which each script takes them; ``scripts/common.lua`` says what is in them.
    ``released`` and ``released_by`` go only when the node is forgotten, ``history`` only with age;
    ``recorded`` stays, so that nothing is ever taken over twice.
    """

    reservations: str
    released: str
    released_by: str
    quarantine: str
    scan: str
    queue: str
    history: str
    recorded: str

    def in_order(self) -> list[str]:
        """Return the keys as the scripts take them."""
        return list(astuple(self))


def is_node_name(text: str) -> bool:
    """Tell whether the text could be a host's name."""
    return _NODE_NAME.fullmatch(text) is not None


def node_keys(node: str) -> NodeKeys:
    """Return the node's keys; raises `InputError` where the name could not be a host's."""
    if not is_node_name(node):
        raise InputError(
            f"{node!r} is not a node name; accepted: letters, digits, '.', '_' and '-', at most 253"
        )
    return NodeKeys(
        **{name: f"{PREFIX}:{{{node}}}:{name}" for name in NodeKeys.__dataclass_fields__}
    )
