"""Read nodes with plain commands, in one transaction where possible; read permission is enough."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from canhazgpu.errors import ScanError
from canhazgpu.gpu.scan import Scan
from canhazgpu.gpu.scan_json import scan_from_json
from canhazgpu.gpu.scan_supplement import with_supplement
from canhazgpu.ledger.co_holders import without_expired
from canhazgpu.ledger.record_json import (
    indices_from_json,
    quarantine_from_json,
    queue_from_hash,
    reservation_from_json,
    seconds_from_ms_text,
)
from canhazgpu.ledger.store import keys
from canhazgpu.ledger.values import NodeView, Reservation

if TYPE_CHECKING:
    import redis

NODES_PER_READ = 64
"""Nodes per transaction; limits the size of one reply, not of the result."""

KEYS_PER_READ = 2000
KEYS_PER_PART = 50
"""Where some of many keys exist, so many are asked for at once before each is."""

SCAN_FIELDS = ("data", "at", "supplement", "most", "partitions", "partitions_at")
"""The others of a published scan are for scripts, and for its head."""

ANSWERS_PER_NODE = 6
"""Replies per node: its hashes, and whether it is listed."""

Hash = Mapping[str, str]


def read_node_names(client: redis.Redis, prefix: str) -> list[str]:
    """Return the node names in the index; other texts are left out."""
    listed = cast(Iterable[str], client.smembers(keys.nodes_key(prefix)))
    return [name for name in listed if keys.is_node_name(name)]


def existing_keys(client: redis.Redis, names: Sequence[str], *, in_cluster: bool) -> set[str]:
    """Return those keys that exist. That all or none of many do costs one command."""
    found: set[str] = set()
    unsure = [names]
    for size in (KEYS_PER_READ, KEYS_PER_PART):
        parts = [some for one in unsure for some in _parts(one, size)]
        counts = _numbers_existing(client, parts, in_cluster)
        unsure = []
        for some, count in zip(parts, counts, strict=True):
            if count == len(some):
                found.update(some)
            elif count:
                unsure.append(some)
    rest = [name for some in unsure for name in some]
    counts = _numbers_existing(client, [[name] for name in rest], in_cluster=False)
    found.update(name for name, count in zip(rest, counts, strict=True) if count)
    return found


def _numbers_existing(
    client: redis.Redis, parts: Sequence[Sequence[str]], in_cluster: bool
) -> list[int]:
    """Return how many of the keys of each part exist."""
    if in_cluster:
        # The keys of a part are on several servers, and no pipeline asks several for one answer.
        return [client.exists(*some) for some in parts]
    pipeline = client.pipeline(transaction=False)
    for some in parts:
        pipeline.exists(*some)
    return pipeline.execute() if parts else []


def _parts(names: Sequence[str], size: int) -> list[Sequence[str]]:
    return [names[first : first + size] for first in range(0, len(names), size)]


def read_node_views(
    client: redis.Redis, names: Sequence[str], prefix: str, *, in_cluster: bool
) -> tuple[list[NodeView], set[str]]:
    """Return the views of these nodes, in this order, and the names of those that are listed."""
    views: list[NodeView] = []
    listed: set[str] = set()
    for first in range(0, len(names), NODES_PER_READ):
        some = names[first : first + NODES_PER_READ]
        read, are_listed = _read_batch(client, some, prefix, in_cluster)
        views += read
        listed.update(name for name, is_listed in zip(some, are_listed, strict=True) if is_listed)
    return views, listed


def _read_batch(
    client: redis.Redis, names: Sequence[str], prefix: str, in_cluster: bool
) -> tuple[list[NodeView], list[bool]]:
    if in_cluster:
        # The servers of a cluster share neither a transaction nor a clock.
        answers = _ask(client, names, prefix, transaction=False)
        time = client.time()
    else:
        time, *answers = _ask_at_once(client, names, prefix)
    seconds, microseconds = time
    read_at = seconds + microseconds / 1e6
    rows = [
        answers[first : first + ANSWERS_PER_NODE]
        for first in range(0, len(answers), ANSWERS_PER_NODE)
    ]
    views = [_node_view(name, read_at, row[:-1]) for name, row in zip(names, rows, strict=True)]
    return views, [bool(row[-1]) for row in rows]


def _ask_at_once(client: redis.Redis, names: Sequence[str], prefix: str) -> list[Any]:
    """Return the server's time and the answers about the nodes, in one transaction."""
    from redis.exceptions import OutOfMemoryError  # noqa: PLC0415 - imported by the client

    try:
        return _ask(client, names, prefix, transaction=True, with_time=True)
    except OutOfMemoryError:
        # A server without memory refuses what a transaction would have to queue, reads too. It
        # takes no change either, but what frees memory.
        return _ask(client, names, prefix, transaction=False, with_time=True)


def _ask(
    client: redis.Redis,
    names: Sequence[str],
    prefix: str,
    *,
    transaction: bool,
    with_time: bool = False,
) -> list[Any]:
    """Return `ANSWERS_PER_NODE` for each node, after the server's time if it is wanted."""
    pipeline = client.pipeline(transaction=transaction)
    if with_time:
        pipeline.time()
    for name in names:
        node = keys.node_keys(name, prefix)
        pipeline.hmget(node.scan, SCAN_FIELDS)
        for key in (node.reservations, node.released, node.quarantine, node.queue):
            pipeline.hgetall(key)
        pipeline.sismember(keys.nodes_key(prefix), name)
    return pipeline.execute()


def _node_view(name: str, read_at: float, answers: Sequence[Any]) -> NodeView:
    records, released, quarantines, queue = cast(Sequence[Hash], answers[1:])
    fields = zip(SCAN_FIELDS, cast(Sequence[str | None], answers[0]), strict=True)
    scan = {name: value for name, value in fields if value is not None}
    return recorded_view(
        name,
        read_at,
        scan=_published_scan(scan),
        scanned_at=seconds_from_ms_text(scan.get("at")),
        reservations={gpu: reservation_from_json(gpu, text) for gpu, text in records.items()},
        released_at={gpu: seconds_from_ms_text(text) for gpu, text in released.items()},
        quarantines={gpu: quarantine_from_json(gpu, text) for gpu, text in quarantines.items()},
        queue=queue_from_hash(queue, read_at),
        most_gpus=indices_from_json(scan.get("most", "")),
        partitions=_published_partitions(scan.get("partitions")),
        partitions_at=seconds_from_ms_text(scan.get("partitions_at")),
    )


def recorded_view(
    node: str,
    read_at: float,
    *,
    reservations: Mapping[str, Reservation],
    released_at: Mapping[str, float | None],
    **recorded: Any,
) -> NodeView:
    """Return the view of what is recorded, as it is at `read_at`.

    A reservation that has expired, but that no script has removed yet, counts as released when it
    expired.
    """
    current = without_expired(reservations, read_at)
    released = {gpu: at for gpu, at in released_at.items() if at is not None}
    for gpu, one in reservations.items():
        if gpu not in current and one.expires_at is not None:
            released[gpu] = one.expires_at
    return NodeView(node, read_at, reservations=current, released_at=released, **recorded)


def _published_partitions(text: str | None) -> tuple[str, ...] | None:
    """Return the partitions, None where there are none or another program wrote them."""
    try:
        return partitions_from_value(json.loads(text) if text else None)
    except (ValueError, RecursionError):
        return None


def partitions_from_value(names: Any) -> tuple[str, ...] | None:
    """Return the partitions of a record that was parsed, None where it is no such record."""
    if not isinstance(names, list) or not all(isinstance(one, str) for one in names):
        return None
    return tuple(names)


def _published_scan(scan: Hash) -> Scan | None:
    if "data" not in scan:
        return None
    try:
        return with_supplement(scan_from_json(scan["data"]), scan.get("supplement"))
    except ScanError:
        # Another program or another release wrote it: it counts as no scan.
        return None
