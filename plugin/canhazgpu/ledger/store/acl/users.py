"""The Redis users of one cluster, and what each may do (decision 29); pure.

A user for each node may write that node's keys, read all of the ledger, and add members to the set
of nodes and to the indexes; it can remove none. One reader reads the ledger. One user for orders,
of login hosts, reads it too, and may append to each node's orders. One administrator does all that
the documents for administrators ask for. The rules need Redis 7 or Valkey: selectors (in
parentheses) and ``%R~``.

Patterns of keys are globs. A prefix and a node's name contain no character that a glob reads, and
``{NODE}:`` is closed, so that the user of ``n1`` may not write the keys of ``n10``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.ledger.store.keys import indexes_pattern, node_keys, nodes_key, orders_pattern
from canhazgpu.ledger.unbounded_reads import UNBOUNDED_READS

NODE = "node"
READER = "reader"
ORDER = "order"
ADMIN = "admin"

_CONNECT = "+@connection +@transaction +time +cluster|slots +cluster|shards +cluster|nodes"
"""What a client needs to connect, also to Redis Cluster; and the store's clock."""
_NOT_OTHERS = f"-@admin -@dangerous -scan -randomkey -dbsize -function {UNBOUNDED_READS}"
"""What concerns the server, or the keys of other applications."""
_SCRIPTS = "+eval +evalsha +script|load"


@dataclass(frozen=True, slots=True)
class KeyRight:
    """A pattern of keys, and whether they may be read and written."""

    pattern: str
    reads: bool
    writes: bool

    def covers(self, other: KeyRight) -> bool:
        """Return whether the other right gives nothing more."""
        stem, is_open = self.pattern.removesuffix("*"), self.pattern.endswith("*")
        is_inside = other.pattern.startswith(stem) if is_open else other.pattern == stem
        return is_inside and self.reads >= other.reads and self.writes >= other.writes


@dataclass(frozen=True, slots=True)
class StoreUser:
    """One user: `rules` are those of Redis' ACL, without the password. `node` is a node's user's.

    `keys` are the rights on keys that the rules give.
    """

    name: str
    role: str
    rules: str
    keys: tuple[KeyRight, ...]
    node: str = ""

    def line(self, digest: str) -> str:
        """Return the line of an ACL file; `digest` is the password's SHA-256 in hex."""
        return f"user {self.name} reset on #{digest} {self.rules}"


def user_name(prefix: str, role: str, node: str = "") -> str:
    """Return the name; no prefix holds ``-node``, so it is no user's of another cluster."""
    return f"{prefix}-{role}-{node}" if node else f"{prefix}-{role}"


def is_users_name(name: str, prefix: str) -> bool:
    """Return whether the name is one of the users of this prefix's cluster."""
    known = {user_name(prefix, role) for role in (READER, ORDER, ADMIN)}
    return name in known or name.startswith(f"{prefix}-{NODE}-")


def store_users(prefix: str, nodes: Iterable[str]) -> tuple[StoreUser, ...]:
    """Return all users; raises `InputError` for what is no node's name."""
    users = [_node_user(prefix, node) for node in dict.fromkeys(nodes)]
    return (*users, _reader(prefix), _order(prefix), _admin(prefix))


def _node_user(prefix: str, node: str) -> StoreUser:
    own = node_keys(node, prefix).scan.removesuffix("scan") + "*"
    names, indexes, all_keys = nodes_key(prefix), indexes_pattern(prefix), f"{prefix}:*"
    rules = (
        f"~{own} resetchannels -@all +@read +@write {_CONNECT} {_SCRIPTS} {_NOT_OTHERS}"
        f" (%R~{all_keys} -@all +@read {_NOT_OTHERS}) (%W~{names} -@all +sadd)"
        f" (%W~{indexes} -@all +sadd)"
    )
    rights = (
        KeyRight(own, reads=True, writes=True),
        KeyRight(all_keys, reads=True, writes=False),
        KeyRight(names, reads=False, writes=True),
        KeyRight(indexes, reads=False, writes=True),
    )
    return StoreUser(user_name(prefix, NODE, node), NODE, rules, rights, node)


def _reader(prefix: str) -> StoreUser:
    rules = f"%R~{prefix}:* resetchannels -@all +@read {_CONNECT} {_NOT_OTHERS}"
    rights = (KeyRight(f"{prefix}:*", reads=True, writes=False),)
    return StoreUser(user_name(prefix, READER), READER, rules, rights)


def _order(prefix: str) -> StoreUser:
    # RPUSH alone: unlike XADD, it has no form that removes what others have appended.
    reader, orders = _reader(prefix), orders_pattern(prefix)
    rules = f"{reader.rules} (%W~{orders} -@all +rpush)"
    rights = (*reader.keys, KeyRight(orders, reads=False, writes=True))
    return StoreUser(user_name(prefix, ORDER), ORDER, rules, rights)


def _admin(prefix: str) -> StoreUser:
    # Who may change the ACL could give himself the rest; without it, no mistake empties the server.
    rules = f"~{prefix}:* resetchannels +@all -flushall -flushdb -swapdb"
    rights = (KeyRight(f"{prefix}:*", reads=True, writes=True),)
    return StoreUser(user_name(prefix, ADMIN), ADMIN, rules, rights)


_RIGHT = re.compile(r"(?:%(RW?|W)~|~)(\S+)", re.IGNORECASE)


def rights_in(rules: str) -> tuple[KeyRight, ...]:
    """Return the rights on keys in the rules of an ACL, those in selectors too."""
    found = []
    for word in re.split(r"[\s()]+", rules):
        if word.lower() == "allkeys":
            found.append(KeyRight("*", reads=True, writes=True))
        elif match := _RIGHT.fullmatch(word):
            access = (match[1] or "RW").upper()
            found.append(KeyRight(match[2], reads="R" in access, writes="W" in access))
    return tuple(found)


def parse_acl(lines: Iterable[str]) -> dict[str, str]:
    """Return the rules by the user's name, from an ACL file or the answer to ``ACL LIST``."""
    found: dict[str, str] = {}
    for line in lines:
        word, _, rest = line.strip().partition(" ")
        name, _, rules = rest.strip().partition(" ")
        if word.lower() == "user" and name:
            found[name] = rules.strip()
    return found
