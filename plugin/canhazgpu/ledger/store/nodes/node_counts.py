"""Read the counts of many nodes: a tenth of what their heads take; read permission is enough.

`scripts/at_end/head.lua` writes and describes them. As with heads, they are taken as they are only
where nothing was written after them. Of any other node, the head is read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from canhazgpu.ledger.store.history.stream_id import NO_ENTRY
from canhazgpu.ledger.store.keys import node_key
from canhazgpu.ledger.store.nodes.head_view import is_entry_id
from canhazgpu.ledger.store.nodes.node_heads import (
    TRUSTED_SCAN_S,
    changed_histories,
    read_texts,
)
from canhazgpu.ledger.values import NodeCounts

if TYPE_CHECKING:
    import redis

COUNTS_FORM = 1
_MILLISECONDS = re.compile("[0-9]{1,18}")


def read_counts(
    client: redis.Redis, names: Sequence[str], prefix: str, *, in_cluster: bool
) -> Iterator[NodeCounts]:
    """Yield the counts of those nodes, in this order, that have some."""
    read_at, texts = read_texts(
        client, [node_key(name, "counts", prefix) for name in names], in_cluster
    )
    found = {
        name: content
        for name, text in zip(names, texts, strict=True)
        if text and (content := _parsed(text)) is not None
    }
    histories = {
        node_key(name, "history", prefix): content["last"] or NO_ENTRY
        for name, content in found.items()
    }
    changed = changed_histories(client, histories, in_cluster=in_cluster)
    stale = _replaced_scans(client, found, read_at, prefix)
    for name, content in found.items():
        if name not in stale and node_key(name, "history", prefix) not in changed:
            yield NodeCounts(name, read_at, content)


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if type(content) is not dict or content.get("form") != COUNTS_FORM:
        return None
    last, at = content.get("last"), content.get("at")
    if type(last) is not str or type(at) is not str:
        return None
    return content if is_entry_id(last) and _MILLISECONDS.fullmatch(at) else None


def _replaced_scans(
    client: redis.Redis, found: Mapping[str, Mapping[str, Any]], read_at: float, prefix: str
) -> set[str]:
    """Return the nodes with an old scan that a former release may have replaced, and has."""
    youngest_ms = (read_at - TRUSTED_SCAN_S) * 1000
    old = [name for name, content in found.items() if int(content["at"]) < youngest_ms]
    if not old:
        return set()
    pipeline = client.pipeline(transaction=False)
    for name in old:
        pipeline.hget(node_key(name, "scan", prefix), "at")
    answers = pipeline.execute()
    return {name for name, at in zip(old, answers, strict=True) if at != found[name]["at"]}
