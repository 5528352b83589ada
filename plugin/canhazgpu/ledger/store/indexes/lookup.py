"""Find the nodes of a job or a user by the indexes, and those whose entries may be incomplete.

What the indexes hold was written by many: a member that is no hint is skipped. They may be large
where somebody has filled them, so they are read in portions, and the server chooses the job's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

from canhazgpu.ledger.store import keys
from canhazgpu.ledger.store.indexes.hints import UNKNOWN_UID
from canhazgpu.ledger.store.nodes.node_heads import read_texts
from canhazgpu.ledger.store.nodes.node_views import existing_keys
from canhazgpu.ledger.usage import DAY_S
from canhazgpu.ledger.values import FoundNodes

if TYPE_CHECKING:
    import redis

MEMBERS_PER_READ = 5000
OWNERS_INDEXED = "2"
"""The mark of a node whose runs and reservations by hand are in the index, too."""


def find_job(client: redis.Redis, prefix: str, job_id: int) -> dict[str, set[int]]:
    """Return the days of each node that is said to tell of the job."""
    found: dict[str, set[int]] = {}
    key = keys.jobs_index_key(job_id, prefix)
    for member in _members(client, key, f"{job_id} *"):
        _, node, day = [*member.split(" "), "", ""][:3]
        if keys.is_node_name(node) and day.isascii() and day.isdecimal() and len(day) < 7:
            found.setdefault(node, set()).add(int(day))
    return found


def find_owner(
    client: redis.Redis, prefix: str, owner: str, days: int, *, in_cluster: bool
) -> dict[str, frozenset[int]]:
    """Return the days of each node that is said to tell of the run or reservation by hand.

    They are among today and so many `days` before it.
    """
    seconds, _ = client.time()
    today = seconds // DAY_S
    # A client's clock may be a day ahead.
    numbers = [keys.owner_number(owner, day) for day in range(today - days, today + 2)]
    wanted = {number: keys.jobs_index_key(number, prefix) for number in numbers}
    existing = existing_keys(client, [*wanted.values()], in_cluster=in_cluster)
    found: dict[str, frozenset[int]] = {}
    for number, key in wanted.items():
        if key in existing:
            for node, its_days in find_job(client, prefix, number).items():
                found[node] = found.get(node, frozenset()) | its_days
    return found


def find_user(client: redis.Redis, prefix: str, uid: int, days: int) -> dict[str, set[int]]:
    """Return the days of each node that is said to have the user, today and `days` before it."""
    seconds, _ = client.time()
    found: dict[str, set[int]] = {}
    for day in range(seconds // DAY_S - days, seconds // DAY_S + 1):
        for one in (uid, UNKNOWN_UID):
            for node in _members(client, keys.user_index_key(one, day, prefix), None):
                if keys.is_node_name(node):
                    found.setdefault(node, set()).add(day)
    return found


def found_nodes(found: dict[str, set[int]], unindexed: Iterable[str]) -> FoundNodes:
    """Return what was found; a node that is to be read in full is not hinted at."""
    others = set(unindexed)
    days = {node: frozenset(one) for node, one in found.items() if node not in others}
    return FoundNodes(days, tuple(sorted(others)))


def unindexed_nodes(
    client: redis.Redis, prefix: str, names: Sequence[str], *, in_cluster: bool
) -> list[str]:
    """Return the nodes whose entries in the indexes may be incomplete."""
    marks = [keys.node_key(name, "indexed", prefix) for name in names]
    found = existing_keys(client, marks, in_cluster=in_cluster)
    return [name for name, mark in zip(names, marks, strict=True) if mark not in found]


def unindexed_for_owners(
    client: redis.Redis, prefix: str, names: Sequence[str], *, in_cluster: bool
) -> list[str]:
    """Return the nodes whose runs and reservations by hand may be missing in the index.

    Those are left out that have told nothing since all of it was there.
    """
    marks = [keys.node_key(name, "indexed", prefix) for name in names]
    found = read_texts(client, marks, in_cluster)[1] if marks else []
    lacking = [name for name, mark in zip(names, found, strict=True) if mark != OWNERS_INDEXED]
    return _told_more(client, prefix, lacking, ("through", "owners"))


def unindexed_for_jobs(client: redis.Redis, prefix: str, names: Sequence[str]) -> list[str]:
    """Return those of the unindexed nodes that have told something since they were indexed."""
    return _told_more(client, prefix, names, ("through",))


def _told_more(
    client: redis.Redis, prefix: str, names: Sequence[str], indexed: Sequence[str]
) -> list[str]:
    """Return the nodes whose last entry is another than these fields of their usage name."""
    pipeline = client.pipeline(transaction=False)
    for name in names:
        node = keys.node_keys(name, prefix)
        pipeline.hmget(node.usage, *indexed)
        pipeline.xrevrange(node.history, count=1)
    answers = pipeline.execute() if names else []
    rows = zip(names, answers[::2], answers[1::2], strict=True)
    return [name for name, through, last in rows if last and {*through} != {last[0][0]}]


def is_wrong_type(error: Exception) -> bool:
    """Tell whether the store says that a key is of another type."""
    return "WRONGTYPE" in str(error)


def is_denied(error: Exception) -> bool:
    """Tell whether the login may not do that."""
    from redis.exceptions import NoPermissionError  # noqa: PLC0415 - imported by the client

    return isinstance(error, NoPermissionError)


def _members(client: redis.Redis, key: str, pattern: str | None) -> Iterator[str]:
    """Yield the members of a set; none of a key that is no set, or that the login may not read."""
    from redis.exceptions import ResponseError  # noqa: PLC0415 - imported by the client

    cursor: Any = 0
    while True:
        try:
            answer = client.sscan(key, cursor, match=pattern, count=MEMBERS_PER_READ)
        except ResponseError as exc:
            if is_denied(exc) or is_wrong_type(exc):
                return
            raise
        cursor, members = cast(tuple[int, list[str]], answer)
        yield from members
        if not cursor:
            return
