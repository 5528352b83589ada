"""Every Redis key, built in one place.

All keys of a node share the hash tag ``{NODE}``, so that one script touching them runs on one
Redis Cluster slot. The index of nodes is the only key that belongs to no node.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from canhazgpu.errors import InputError

PREFIX = "canhazgpu"
NODES = f"{PREFIX}:nodes"
"""Set of the names of all nodes that ever published a scan."""

_NODE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,252}")


@dataclass(frozen=True, slots=True)
class NodeKeys:
    """The keys of one node.

    ``reservations``: hash, GPU UUID → reservation (JSON). ``released``: hash, GPU UUID → time of
    its last release (ms), never deleted. ``quarantine``: hash, GPU UUID → reason (JSON).
    ``scan``: hash with ``data`` (JSON), ``at`` (ms) and ``idle``. ``history``: stream of events.
    ``queue``: hash, owner → waiter (JSON). ``users``: hash, GPU UUID → user of its last release.
    """

    reservations: str
    released: str
    quarantine: str
    scan: str
    history: str
    queue: str
    users: str

    def all(self) -> list[str]:
        """Return them in the order in which every script takes them."""
        return [getattr(self, name) for name in self.__dataclass_fields__]


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
