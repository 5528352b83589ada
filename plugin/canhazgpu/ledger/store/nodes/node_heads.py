"""Read many nodes by their heads: one short text for each node; read permission is enough.

`scripts/at_end/head.lua` writes the heads and describes them. A head is taken as it is only where
nothing was written after it: one command asks for the nodes whose history has gone on since. Those
nodes, and all whose head is missing or cannot be read, are read in full.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.ledger.store.history.reading import entries_after, streams_asked
from canhazgpu.ledger.store.history.stream_id import NO_ENTRY
from canhazgpu.ledger.store.keys import node_key
from canhazgpu.ledger.store.nodes.head_view import is_head, scan_time_text, view_from_head
from canhazgpu.ledger.store.nodes.node_views import read_node_views
from canhazgpu.ledger.values import NodeHead, NodeView

if TYPE_CHECKING:
    import redis

TRUSTED_SCAN_S = 600.0
"""A scan younger than this is the node's last one, or a former release has published one since."""

Hash = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Head:
    node: str
    content: dict[str, Any]

    @property
    def last_entry(self) -> str:
        return self.content["texts"]["last"] or NO_ENTRY


def read_brief_views(
    client: redis.Redis, names: Sequence[str], prefix: str, *, in_cluster: bool
) -> list[NodeView]:
    """Return the views of these nodes, in this order, as far as possible from their heads."""
    views = {}
    for head in read_heads(client, names, prefix, in_cluster=in_cluster):
        view = view_of_head(head)
        if view is not None:
            views[head.node] = view
    missing = [name for name in names if name not in views]
    if missing:
        full, _ = read_node_views(client, missing, prefix, in_cluster=in_cluster)
        views |= {view.node: view for view in full}
    return [views[name] for name in names]


def view_of_head(head: NodeHead) -> NodeView | None:
    """Return the view; None where the node is to be read in full."""
    if head.content is None:
        return None
    return view_from_head(head.node, head.read_at, head.content, head.queue or {})


def read_heads(
    client: redis.Redis, names: Sequence[str], prefix: str, *, in_cluster: bool
) -> list[NodeHead]:
    """Return the heads of these nodes, in this order; those that are not to be used are empty."""
    read_at, texts = read_texts(
        client, [node_key(name, "head", prefix) for name in names], in_cluster
    )
    heads = [
        _Head(name, content)
        for name, text in zip(names, texts, strict=True)
        if (content := _parsed(text)) is not None
    ]
    current = _current(client, heads, prefix, read_at, in_cluster)
    found = {head.node: (head.content, queue) for head, queue in current}
    return [NodeHead(name, read_at, *found.get(name, ())) for name in names]


def read_texts(
    client: redis.Redis, names: Sequence[str], in_cluster: bool
) -> tuple[float, list[str | None]]:
    """Return the store's time before the texts of these keys were read, and the texts."""
    pipeline = client.pipeline(transaction=False)
    if in_cluster:
        seconds, microseconds = client.time()
        for key in names:
            pipeline.get(key)
        texts = pipeline.execute()
    else:
        pipeline.time()
        pipeline.mget(names)
        (seconds, microseconds), texts = pipeline.execute()
    return seconds + microseconds / 1e6, texts


def changed_histories(
    client: redis.Redis, last_entries: Mapping[str, str], *, in_cluster: bool
) -> set[str]:
    """Return those of the streams that have entries after the ones given by their ids."""
    return {*entries_after(client, last_entries, 1, in_cluster=in_cluster)}


def _parsed(text: str | None) -> dict[str, Any] | None:
    try:
        content = json.loads(text) if text else None
    except (ValueError, RecursionError):
        return None
    return content if is_head(content) else None


def _current(
    client: redis.Redis,
    heads: Sequence[_Head],
    prefix: str,
    read_at: float,
    in_cluster: bool,
) -> Iterable[tuple[_Head, Hash]]:
    """Yield the heads that are as new as their nodes' other keys, with the queues."""
    old = [head for head in heads if _has_old_scan(head, read_at)]
    waiting = [head for head in heads if head.content["waiting"]]
    entries = {node_key(head.node, "history", prefix): head.last_entry for head in heads}
    pipeline = client.pipeline(transaction=False)
    asked = streams_asked(entries, in_cluster)
    for streams in asked:
        pipeline.xread(cast(Any, streams), count=1)
    for head in old:
        pipeline.hget(node_key(head.node, "scan", prefix), "at")
    for head in waiting:
        pipeline.hgetall(node_key(head.node, "queue", prefix))
    answers = iter(pipeline.execute() if asked else ())
    changed = {key for answer in islice(answers, len(asked)) for key, _ in answer or ()}
    stale = {
        head.node
        for head, at in zip(old, islice(answers, len(old)), strict=True)
        if at != scan_time_text(head.content)
    }
    queues = dict(zip((head.node for head in waiting), answers, strict=True))
    for head in heads:
        history = node_key(head.node, "history", prefix)
        if history not in changed and head.node not in stale:
            yield head, queues.get(head.node, {})


def _has_old_scan(head: _Head, read_at: float) -> bool:
    try:
        return float(scan_time_text(head.content)) / 1000 < read_at - TRUSTED_SCAN_S
    except ValueError:
        return True
