"""All Redis keys.

Each begins with ``store.prefix``, which keeps clusters on one Redis apart. The keys of a node share
the hash tag ``{NODE}``: they are in one slot of Redis Cluster, so one script may use them together.
The names of the nodes and the indexes belong to no node. Decision 29 lists who may write which.
"""

from __future__ import annotations

import re
from dataclasses import astuple
from hashlib import sha1

from canhazgpu.config.node_sections import DEFAULT_STORE_PREFIX
from canhazgpu.errors import InputError
from canhazgpu.frozen_dataclass import dataclass

PREFIX = DEFAULT_STORE_PREFIX
NODES = f"{PREFIX}:nodes"
"""`nodes_key` with the default prefix."""

Hint = tuple[str, str]
"""A key of an index, and a member to add."""

JOBS_PER_KEY = 64
"""Jobs whose nodes are in one key of the index: few keys, and few members in each."""

OWNERS_FROM = 10**18
OWNER_NUMBERS_A_DAY = 65_536
"""On a day, so many numbers stand for runs and reservations by hand. So a thousand keys a day are
the most, few owners have one number, and a key has entries of one day."""

_NODE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,252}")


@dataclass(frozen=True, slots=True)
class NodeKeys:
    """The keys of one node, in the order in which every script takes them.

    The scripts describe their values. ``recorded`` is kept for some time when the node is
    forgotten, so that no journal entry is recorded twice; ``answers`` too, so that no script that
    comes late makes a grant. ``usage``, ``head``, ``counts`` and ``indexed`` follow from the other
    keys.
    """

    reservations: str
    released: str
    released_by: str
    quarantine: str
    scan: str
    queue: str
    history: str
    recorded: str
    answers: str
    usage: str
    head: str
    indexed: str
    history_meta: str
    counts: str

    def in_order(self) -> list[str]:
        """Return the keys in the order of the scripts."""
        return list(astuple(self))


@dataclass(frozen=True, slots=True)
class OrderKeys:
    """The keys of one node's orders; ``scripts/node/take_order.lua`` describes their values.

    Whoever gives orders may append to ``orders``, and to nothing else.
    """

    orders: str
    order_answers: str
    order_reader: str

    def in_order(self) -> list[str]:
        """Return the keys in the order of the script."""
        return list(astuple(self))


def is_node_name(text: str) -> bool:
    """Return whether the text is a possible host name."""
    return _NODE_NAME.fullmatch(text) is not None


def nodes_key(prefix: str = PREFIX) -> str:
    """Return the key of the index, a Redis set: the names of all nodes that published a scan."""
    return f"{prefix}:nodes"


def indexes_pattern(prefix: str = PREFIX) -> str:
    """Return a glob that matches the keys of all indexes, and no other key of the ledger."""
    return f"{prefix}:index:*"


def jobs_index_key(job_id: int, prefix: str = PREFIX) -> str:
    """Return the key of the set that says where the job was: members ``JOBID NODE DAY``.

    All clusters' jobs of this number are in it. `JOBS_PER_KEY` numbers share a key.
    """
    return f"{prefix}:index:jobs:{job_id // JOBS_PER_KEY}"


def owner_number(owner: str, day: int) -> int:
    """Return by which number the index of jobs has a run or a reservation by hand on a day (UTC).

    No job has such a number. Others may have the same: who looks there reads what the nodes tell.
    """
    digest = sha1(owner.encode(errors="replace"), usedforsecurity=False).digest()
    return OWNERS_FROM + day * OWNER_NUMBERS_A_DAY + int.from_bytes(digest[:2], "big")


def user_index_key(uid: int, day: int, prefix: str = PREFIX) -> str:
    """Return the key of the set of nodes where this user held or waited on a day (UTC).

    `day` counts from 1970-01-01, by the store's clock.
    """
    return f"{prefix}:index:user:{uid}:{day}"


def node_keys(node: str, prefix: str = PREFIX) -> NodeKeys:
    """Return the node's keys; raises `InputError` if it is no possible host name."""
    stem = _stem(node, prefix)
    return NodeKeys(**{name: f"{stem}:{name}" for name in NodeKeys.__dataclass_fields__})


def node_key(node: str, name: str, prefix: str) -> str:
    """Return one key of a node; quicker than `node_keys`.

    The name is not checked: see `require_node_name`.
    """
    return f"{prefix}:{{{node}}}:{name}"


def order_keys(node: str, prefix: str = PREFIX) -> OrderKeys:
    """Return the keys of the node's orders; raises `InputError` as `node_keys` does."""
    stem = _stem(node, prefix)
    return OrderKeys(**{name: f"{stem}:{name}" for name in OrderKeys.__dataclass_fields__})


def orders_pattern(prefix: str = PREFIX) -> str:
    """Return a glob that matches the ``orders`` of every node, and no other key of the ledger."""
    return f"{prefix}:{{*}}:orders"


def require_node_name(node: str) -> None:
    """Raise `InputError` for what is no possible host name."""
    if not is_node_name(node):
        raise InputError(
            f"{node!r} is not a node name; accepted: letters, digits, '.', '_' and '-', at most 253"
        )


def _stem(node: str, prefix: str) -> str:
    require_node_name(node)
    return f"{prefix}:{{{node}}}"
