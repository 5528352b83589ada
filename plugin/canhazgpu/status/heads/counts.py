"""Count a node's GPUs as its head says, without a value for each of them; pure.

`node_status` judges. What it would say is counted here where that is plain: every GPU can be read,
and is either free, or held and used by its holder alone. A large cluster's nodes mostly are so.
Of any other node nothing is said: it is to be judged. A test compares the two for any content.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from canhazgpu.durations import short_duration_text
from canhazgpu.frozen_dataclass import dataclass, quick_constructor
from canhazgpu.gpu.process_job import is_unidentified
from canhazgpu.gpu.scan_supplement import BRIEF_FORM
from canhazgpu.gpu.usage import GpuState, UsagePolicy
from canhazgpu.ledger.record_json import SHARED_OWNER, queue_from_hash
from canhazgpu.ledger.values import MAX_NAME, NodeCounts, NodeHead, Waiter
from canhazgpu.status.status_filter import StatusFilter, has_named_model
from canhazgpu.status.summary import NodeSummary, UserGroup

NO_GPUS = UserGroup(0)
_new_summary = quick_constructor(NodeSummary)


@dataclass(frozen=True, slots=True)
class CountedNode:
    """A node of which only its GPUs were counted: each is available or reserved.

    `products` are the names of its GPUs' products, and `models` those of models on them, None where
    they are not known. The other fields are those of `NodeStatus`.
    """

    counts: NodeSummary
    read_at: float
    scanned_at: float
    source: str
    expected_gpus: int
    partitions: tuple[str, ...] | None
    partitions_at: float | None
    products: tuple[str, ...] | None = None
    models: tuple[str, ...] | None = None

    live = False
    fault = None
    hooks_outage = None
    reservations_known = True

    @property
    def node(self) -> str:
        """The node's name."""
        return self.counts.node

    @property
    def names_models(self) -> bool:
        """Whether `products` and `models` are known."""
        return self.products is not None and self.models is not None

    @property
    def found_gpus(self) -> int:
        """The number of GPUs in the scan."""
        return self.counts.total


_new_counted_node = quick_constructor(CountedNode)


def shown_by_counts(nodes: Iterable[CountedNode], chosen: StatusFilter) -> list[CountedNode]:
    """Return the nodes and the GPUs that a filter shows, by its states and partitions.

    Its users are not counted. Of its models it is told which nodes have none of them.
    """
    states, found = chosen.states, []
    may_have = functools.cache(functools.partial(_may_have_model, chosen))
    for one in nodes:
        if chosen.partitions and chosen.partitions.isdisjoint(one.partitions or ()):
            continue
        if chosen.models and not may_have(one.products, one.models):
            continue
        if not states:
            found.append(one)
            continue
        counts = one.counts
        available = counts.available if GpuState.AVAILABLE in states else 0
        reserved = counts.reserved if GpuState.RESERVED in states else NO_GPUS
        if available or reserved.count:
            found.append(showing(one, available, reserved))
    return found


def showing(one: CountedNode, available: int, reserved: UserGroup) -> CountedNode:
    """Return the node with these GPUs alone to be shown; as `replace`, which takes long."""
    counts = one.counts
    shown = _new_summary(
        *(counts.node, counts.total, available, reserved, counts.unreserved, counts.intruded),
        *(counts.quarantined, counts.unknown, counts.waiting, counts.notes),
    )
    return _new_counted_node(
        *(shown, one.read_at, one.scanned_at, one.source, one.expected_gpus),
        *(one.partitions, one.partitions_at, one.products, one.models),
    )


def _may_have_model(
    chosen: StatusFilter, products: tuple[str, ...] | None, models: tuple[str, ...] | None
) -> bool:
    if products is None or models is None:
        return True
    return has_named_model((*products, *models), chosen.models)


class PlainNode(NamedTuple):
    """What a plain node's head says of the node; the other fields are those of `NodeStatus`."""

    total: int
    available: int
    users: tuple[str, ...]
    scanned_at: float
    source: str
    expected_gpus: int
    partitions: tuple[str, ...] | None
    partitions_at: float | None


class NotPlainError(Exception):
    """The node is to be judged: something on it is not plain."""


NOT_PLAIN_ERRORS = (
    NotPlainError,
    ArithmeticError,
    AttributeError,
    IndexError,
    KeyError,
    TypeError,
    ValueError,
)
"""What comes of a head or counts of any content; numbers in them may be of any size."""


_Holder = tuple[str, int | None, str | None]
"""User, uid, and the job as a process names it; None for what is not known."""


def counted_node(head: NodeHead, policy: UsagePolicy) -> CountedNode | None:
    """Return the counts; None for a node that is to be judged."""
    try:
        content = head.content or {}
        waits = content.get("waiting")
        queue = queue_from_hash(head.queue or {}, head.read_at) if waits else ()
        plain = plain_node(head, content, policy, queue)
        return CountedNode(
            _summary(
                head.node,
                plain.total,
                plain.available,
                UserGroup(plain.total - plain.available, plain.users),
                len(queue),
                head.read_at - plain.scanned_at,
            ),
            head.read_at,
            *plain[3:],
        )
    except NOT_PLAIN_ERRORS:
        return None


def counted_by_counts(node: NodeCounts, policy: UsagePolicy) -> CountedNode | None:
    """Return the same by the counts; None where the reader's threshold or clock decides."""
    read_at, counts = node.read_at, node.content
    try:
        scanned_at, users = int(counts["at"]) / 1000, counts["users"]
        ends_ms, until_ms = counts["ends"], counts["until"]
        available, total = counts["free"], counts["gpus"]
        partitions, partitions_at = counts["partitions"], counts["partitions_at"]
        is_so = (
            counts["free_mb"] <= policy.memory_threshold_mb
            and (ends_ms is None or ends_ms / 1000 > read_at)
            and (until_ms is None or until_ms / 1000 > read_at)
            and 0 <= available <= total
            and type(counts["source"]) is str
            and type(counts["waiting"]) is int
            and (partitions is None or type(partitions) is list)
            and all(type(one) is str for one in partitions or ())
            and all(type(one) is str for one in users)
        )
        return (
            _new_counted_node(
                _summary(
                    node.node,
                    total,
                    available,
                    UserGroup(total - available, tuple(users)),
                    counts["waiting"],
                    read_at - scanned_at,
                ),
                read_at,
                scanned_at,
                counts["source"],
                counts["expected"],
                None if partitions is None else tuple(partitions),
                None if partitions_at is None else _seconds(partitions_at),
                _names(counts.get("products")),
                _names(counts.get("models")),
            )
            if is_so
            else None
        )
    except NOT_PLAIN_ERRORS:
        return None


def plain_node(
    node: NodeHead, head: Mapping[str, Any], policy: UsagePolicy, queue: Sequence[Waiter]
) -> PlainNode:
    """Return what a plain node's head says; raises some error for a node to be judged."""
    brief, texts, partitions = head["brief"], head["texts"], head["partitions"]
    read_at = node.read_at
    _require(not head["quarantined"] and brief["form"] == BRIEF_FORM)
    # One whose lease ends at this very moment counts for one question, not for another.
    for one in queue:
        _require(one.renewed_at + one.lease_s > read_at)
    _require(brief["fault"] is None and type(brief["source"]) is str)
    _require(partitions is None or (type(partitions) is list and _are(str, partitions)))
    scanned_at = _seconds(texts["at"])
    available, users = _counts(head, read_at, policy)
    total, most = available + len(head["held"]), head["most"]
    if most:
        _require(len(most) <= total and _are(int, most.values()))
    return PlainNode(
        total,
        available,
        users,
        scanned_at,
        brief["source"],
        len(most) if most else total,
        None if partitions is None else tuple(partitions),
        _seconds(texts["partitions_at"]) if "partitions_at" in texts else None,
    )


def _names(value: Any) -> tuple[str, ...] | None:
    return tuple(value) if type(value) is list and _are(str, value) else None


def _are(kind: type, values: Iterable[Any]) -> bool:
    return {*map(type, values)} <= {kind}


def _summary(
    node: str, total: int, available: int, reserved: UserGroup, waiting: int, age_s: float
) -> NodeSummary:
    notes = (f"scanned {short_duration_text(age_s)} ago",)
    return _new_summary(node, total, available, reserved, NO_GPUS, NO_GPUS, 0, 0, waiting, notes)


def _counts(
    head: Mapping[str, Any], read_at: float, policy: UsagePolicy
) -> tuple[int, tuple[str, ...]]:
    """Return how many GPUs are available, and who holds the others, in the order of the GPUs."""
    brief, held, records = head["brief"], head["held"], head["records"]
    names, threshold_mb = brief["names"], policy.memory_threshold_mb
    holders: dict[int, _Holder] = {}
    users: dict[str, None] = {}
    seen: set[str] = set()
    last, available, reserved = -1, 0, 0
    # A loop over every GPU of the cluster: conditions stand in it, and call nothing.
    for uuid, index, name, used_mb, total_mb, processes in brief["gpus"]:
        is_plain = (
            type(uuid) is str
            and type(index) is int
            and index > last
            and type(names[name]) is str
            and type(used_mb) is type(total_mb) is int
            and 0 <= used_mb <= total_mb
        )
        if not is_plain:
            raise NotPlainError
        last = index
        seen.add(uuid)
        place = held.get(uuid)
        if place is None:
            if processes or used_mb > threshold_mb:
                raise NotPlainError
            available += 1
            continue
        holder = holders.get(place)
        if holder is None:
            holder = holders[place] = _holder(records[place], read_at)
        if processes:
            for one in processes:
                if not _is_own(holder, one):
                    raise NotPlainError
        users[holder[0]] = None
        reserved += 1
    _require(last >= 0 and len(seen) == available + reserved and reserved == len(held))
    _require("" not in seen)
    return available, tuple(users)


def _holder(record: Mapping[str, Any], read_at: float) -> _Holder:
    """Return who holds a GPU alone, and not for a time that is over."""
    user, uid, job_id = record["user"], record.get("uid"), record.get("job_id")
    type_, granted_ms, ends_ms = record["type"], record["granted_ms"], record.get("expires_ms")
    is_plain = (
        type(record["owner"]) is type(type_) is type(user) is str
        and record["owner"] != SHARED_OWNER
        and len(user) <= MAX_NAME
        and "holders" not in record
        and type(granted_ms) is int
        and (ends_ms is None or (type(ends_ms) is int and ends_ms / 1000 > read_at))
    )
    if not is_plain:
        raise NotPlainError
    job = f"{type_}:{job_id}" if type(job_id) is str else None
    return user, uid if type(uid) is int else None, job


def _is_own(holder: _Holder, process: Any) -> bool:
    """Tell whether a process certainly is the holder's: of its job, else of its user."""
    _, uid, holders_job = holder
    pid, process_uid, user, name, memory_mb, _, job, ancestors, _ = process
    is_process = (
        type(pid) is int
        and type(ancestors) is list
        and (user is None or type(user) is str)
        and (name is None or type(name) is str)
        and (memory_mb is None or type(memory_mb) is int)
    )
    if not is_process:
        return False
    if job is None or holders_job is None:
        return uid is not None and type(process_uid) is int and process_uid == uid
    return bool(job == holders_job) and not is_unidentified(job)


def _seconds(text: str) -> float:
    seconds = float(text) / 1000
    _require(math.isfinite(seconds))
    return seconds


def _require(is_plain: bool) -> None:
    if not is_plain:
        raise NotPlainError
