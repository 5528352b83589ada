"""Compare the users of a Redis server with those of the cluster.

ACLs are each server's own: replicas and the servers of Redis Cluster do not copy them. All servers
of a cluster are asked; of a replicated server, the primary alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from canhazgpu.errors import StoreError
from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.ledger.store.acl.probes import Probe, probes_of, write_probe
from canhazgpu.ledger.store.acl.users import (
    StoreUser,
    is_users_name,
    parse_acl,
    rights_in,
    store_users,
)
from canhazgpu.ledger.store.connect import Role, connect, translate_errors

if TYPE_CHECKING:
    from canhazgpu.config.schema import StoreConfig

MISSING = "missing"
TOO_LITTLE = "too little"
TOO_MUCH = "too much"
UNUSED = "unused"
DEFAULT_USER = "default"

PROBES_PER_REQUEST = 2000


@dataclass(frozen=True, slots=True)
class UserFinding:
    """What is wrong with one user of one server; `server` is empty where there is only one."""

    user: str
    problem: str
    detail: str
    server: str = ""


def check_users(store: StoreConfig, nodes: Sequence[str]) -> list[UserFinding]:
    """Return what is wrong; raises `StoreError` where the login of the store may not ask."""
    client = connect(store, Role.WRITE)
    found: list[UserFinding] = []
    with translate_errors(store):
        for name, server in _servers(client, in_cluster=store.url.startswith("redis+cluster://")):
            found += _check_server(server, store.prefix, nodes, name)
    return found


def _servers(client: Any, *, in_cluster: bool) -> Iterator[tuple[str, Any]]:
    if not in_cluster:
        yield "", client
        return
    for node in client.get_nodes():
        yield node.name, client.get_redis_connection(node)


def _check_server(client: Any, prefix: str, nodes: Sequence[str], server: str) -> list[UserFinding]:
    known = parse_acl(cast(Sequence[str], client.execute_command("ACL", "LIST")))
    users = store_users(prefix, nodes)
    present = [user for user in users if user.name in known]
    probes = [probe for user in present for probe in probes_of(user, prefix)]
    others = [name for name in known if not is_users_name(name, prefix)]
    probes += [write_probe(name, prefix) for name in others]
    wrong = _wrong_answers(client, probes)
    found = [*_problems_of_ours(users, known, wrong), *_problems_of_others(others, known, wrong)]
    expected = {user.name for user in users}
    found += [
        UserFinding(name, UNUSED, "no such node is named; remove it with ACL DELUSER")
        for name in known
        if is_users_name(name, prefix) and name not in expected
    ]
    return [UserFinding(one.user, one.problem, one.detail, server) for one in found]


def _problems_of_ours(
    users: Sequence[StoreUser], known: Mapping[str, str], wrong: Mapping[str, list[Probe]]
) -> Iterator[UserFinding]:
    for user in users:
        rules = known.get(user.name)
        if rules is None:
            yield UserFinding(user.name, MISSING, f"the server has no such user ({user.role})")
            continue
        if little := _too_little(rules, wrong.get(user.name, ())):
            yield UserFinding(user.name, TOO_LITTLE, "; ".join(little))
        if much := _too_much(user, rules, wrong.get(user.name, ())):
            yield UserFinding(user.name, TOO_MUCH, "; ".join(much))


def _too_little(rules: str, wrong: Sequence[Probe]) -> list[str]:
    words = rules.split()
    found = ["it is off"] if "off" in words else []
    if "nopass" not in words and not any(word.startswith("#") for word in words):
        found.append("it has no password, so nobody can log in")
    denied = [one.text for one in wrong if one.allowed]
    return [*found, f"it may not {_some(denied)}"] if denied else found


def _too_much(user: StoreUser, rules: str, wrong: Sequence[Probe]) -> list[str]:
    words = rules.split()
    found = ["it needs no password"] if "nopass" in words else []
    beyond = [
        right.pattern
        for right in rights_in(rules)
        if not any(own.covers(right) for own in user.keys)
    ]
    if beyond:
        found.append(f"it has rights on keys {_some(sorted(set(beyond)))}")
    channels = [word for word in words if word.startswith("&")]
    if channels:
        found.append(f"it has the channels {_some(channels)}")
    allowed = [one.text for one in wrong if not one.allowed]
    return [*found, f"it may {_some(allowed)}"] if allowed else found


def _problems_of_others(
    others: Sequence[str], known: Mapping[str, str], wrong: Mapping[str, list[Probe]]
) -> Iterator[UserFinding]:
    for name in others:
        words = known[name].split()
        if name not in wrong or "off" in words:
            continue
        if name == DEFAULT_USER and "nopass" in words:
            yield UserFinding(
                name,
                TOO_MUCH,
                "whoever reaches the server may change the ledger without a login; when nothing"
                " else needs this user, end it with ACL SETUSER default off",
            )
        else:
            yield UserFinding(name, TOO_MUCH, "it may change the ledger of every node")


def _some(texts: Sequence[str], shown: int = 3) -> str:
    more = f" and {len(texts) - shown} more" if len(texts) > shown else ""
    return ", ".join(texts[:shown]) + more


def _wrong_answers(client: Any, probes: Sequence[Probe]) -> dict[str, list[Probe]]:
    """Return by user the probes that the server would answer in the other way."""
    wrong: dict[str, list[Probe]] = {}
    for first in range(0, len(probes), PROBES_PER_REQUEST):
        some = probes[first : first + PROBES_PER_REQUEST]
        pipeline = client.pipeline(transaction=False)
        for one in some:
            pipeline.execute_command("ACL", "DRYRUN", one.user, *one.command)
        answers = pipeline.execute(raise_on_error=False)
        for one, answer in zip(some, answers, strict=True):
            if isinstance(answer, Exception):
                _raise_unusable(answer)
            if (str(answer) == "OK") is not one.allowed:
                wrong.setdefault(one.user, []).append(one)
    return wrong


def _raise_unusable(answer: Exception) -> None:
    if "DRYRUN" in str(answer).upper() and "PERM" not in str(answer).upper():
        raise StoreError(
            "this server cannot have users for single nodes: that takes Redis 7.0 or later, or"
            f" Valkey ({answer})"
        ) from answer
    raise answer
