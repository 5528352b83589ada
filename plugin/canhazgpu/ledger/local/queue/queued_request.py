"""The node's own queue as values: who waits, in which order and until when; pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.ledger.record_json import waiter_from_dict, waiter_to_dict
from canhazgpu.ledger.values import Waiter

FORMAT = 1


@dataclass(frozen=True, slots=True)
class QueuedRequest:
    """One who waits for GPUs of the node.

    `waiter` is what everybody sees; its times are seconds since the epoch by the node's estimate of
    the store's clock. `ends_at_uptime_s` is when the waiter gives up, in seconds since the node's
    boot, None for never; it leaves the queue then.
    """

    waiter: Waiter
    ends_at_uptime_s: float | None = None

    @property
    def owner(self) -> str:
        """The owner of the later grant."""
        return self.waiter.owner


Entries = tuple[QueuedRequest, ...]
"""The queue, the first in it first."""


def with_entry(entries: Entries, entry: QueuedRequest) -> Entries:
    """Return the queue with the entry: in its owner's place, or at the end.

    Since when it waits stays.
    """
    before = next((one for one in entries if one.owner == entry.owner), None)
    if before is None:
        return (*entries, entry)
    renewed = replace(entry, waiter=replace(entry.waiter, since=before.waiter.since))
    return tuple(renewed if one is before else one for one in entries)


def without_owners(entries: Entries, owners: Sequence[str]) -> Entries:
    """Return the queue without these owners."""
    return tuple(one for one in entries if one.owner not in owners)


def position_of(entries: Entries, owner: str) -> int:
    """Return the owner's place in the queue, from 1; or the one that it would get."""
    owners = [one.owner for one in entries]
    return owners.index(owner) + 1 if owner in owners else len(owners) + 1


def entries_in_force(entries: Entries, uptime_s: float, boot_id: str | None) -> Entries:
    """Return the queue without those whose time is over, or who waited in an earlier boot."""
    return tuple(
        one
        for one in entries
        if (one.ends_at_uptime_s is None or uptime_s < one.ends_at_uptime_s)
        and (None in (boot_id, one.waiter.boot_id) or one.waiter.boot_id == boot_id)
    )


def queue_to_bytes(entries: Entries, node: str, boot_id: str | None) -> bytes:
    """Return the content of the queue's file."""
    waiting = [
        {
            "waiter": {
                **waiter_to_dict(one.waiter),
                "since_ms": int(one.waiter.since * 1000),
                "renewed_ms": int(one.waiter.renewed_at * 1000),
            },
            "ends_at_uptime_s": one.ends_at_uptime_s,
        }
        for one in entries
    ]
    data = {"format": FORMAT, "node": node, "boot_id": boot_id, "waiting": waiting}
    return json.dumps(data).encode()


def queue_from_bytes(content: bytes, node: str, boot_id: str | None) -> Entries:
    """Return the queue with this content, empty for one of an earlier boot.

    Raises one of `RECORD_ERRORS` or `AttributeError` for what is no queue of this node.
    """
    data = json.loads(content)
    if (data["format"], data["node"]) != (FORMAT, node):
        raise ValueError(f"it is of format {data['format']!r:.20} and node {data['node']!r:.80}")
    if data["boot_id"] != boot_id:
        return ()
    return tuple(map(_entry_from_dict, data["waiting"]))


def _entry_from_dict(data: Mapping[str, Any]) -> QueuedRequest:
    waiter, ends_at = data["waiter"], data["ends_at_uptime_s"]
    return QueuedRequest(
        waiter_from_dict(str(waiter["owner"]), waiter),
        None if ends_at is None else float(ends_at),
    )
