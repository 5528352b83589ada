"""Read a node's history, a stream of events, and wait for its next event.

Every change that a waiter may wait for is an event, so a blocking read of the stream wakes it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Mapping
from typing import Any, cast

from canhazgpu.ledger.journal_entries import NOTE_KINDS
from canhazgpu.ledger.record_json import (
    UNKNOWN_CLAIM,
    claim_from_dict,
    facts_from_json,
    seconds_from_ms_text,
    seconds_of,
)
from canhazgpu.ledger.store.session import DAY_MS, MAX_BLOCK_S, StoreSession
from canhazgpu.ledger.values import RECORD_ERRORS, Event

EVENTS_PER_READ = 1000
"""Events per read; limits the size of one reply, not of the result."""
NO_EVENT = "0-0"
"""The id before the first event."""

StreamEntry = tuple[str, dict[str, str]]


def read_history(session: StoreSession, stream: str, since: float) -> list[Event]:
    """Return the events whose own time is `since` or later, the oldest first."""
    events = []
    # An event's own time is never later than its entry's: an expiry is written when it is noticed.
    start = f"{max(int(since * 1000), 0)}-0"
    while True:
        with session.client() as client:
            page = cast(list[StreamEntry], client.xrange(stream, start, count=EVENTS_PER_READ))
        events += [event_from_fields(*entry) for entry in page]
        if len(page) < EVENTS_PER_READ:
            break
        start = f"({page[-1][0]}"
    known = [one for one in events if one is not None and one.at >= since]
    return sorted(known, key=lambda one: one.at)


def read_days(session: StoreSession, stream: str, days: Collection[int]) -> list[Event]:
    """Return the events that were told on these days (UTC, since 1970), the oldest first."""
    events = []
    for day in sorted(days):
        start, end = f"{day * DAY_MS}-0", f"({(day + 1) * DAY_MS}-0"
        while True:
            with session.client() as client:
                page = cast(
                    list[StreamEntry], client.xrange(stream, start, end, count=EVENTS_PER_READ)
                )
            events += [event_from_fields(*entry) for entry in page]
            if len(page) < EVENTS_PER_READ:
                break
            start = f"({page[-1][0]}"
    return sorted((one for one in events if one is not None), key=lambda one: one.at)


def await_event(session: StoreSession, stream: str, after: str, timeout_s: float) -> str:
    """Return the id of the last event; first wait for one after `after`, unless it is empty."""
    if after and not _wait_for_event(session, stream, after, timeout_s):
        return after
    with session.client() as client:
        last = cast(list[StreamEntry], client.xrevrange(stream, count=1))
    return last[0][0] if last else after or NO_EVENT


def _wait_for_event(session: StoreSession, stream: str, after: str, timeout_s: float) -> bool:
    """Return whether an event comes in time; each read blocks briefly, to notice a dead store."""
    deadline = time.monotonic() + timeout_s
    with session.blocking_client() as client:
        while True:
            left_s = min(deadline - time.monotonic(), MAX_BLOCK_S)
            # 0 would block without a limit.
            if client.xread({stream: after}, count=1, block=max(1, int(left_s * 1000))):
                return True
            if time.monotonic() >= deadline:
                return False


def event_from_fields(entry_id: str, fields: Mapping[str, str]) -> Event | None:
    """Return the event of a stream entry, of any kind; None if the entry has no kind."""
    kind, claim, record = fields.get("event"), None, {}
    if not kind:
        return None
    if "claim" in fields:
        claim = UNKNOWN_CLAIM
        try:
            record = json.loads(fields["claim"])
            claim = claim_from_dict(record)
        except RECORD_ERRORS:
            record = {}
    return Event(
        id=entry_id,
        at=seconds_from_ms_text(fields.get("at"))
        or seconds_from_ms_text(entry_id.partition("-")[0])
        or 0.0,
        kind=kind,
        gpu=fields.get("gpu", ""),
        claim=claim,
        # The journal sets one in every claim; a hook's note is no grant.
        granted_at=None if kind in NOTE_KINDS else seconds_of(record, "granted_ms"),
        reason=fields.get("reason", ""),
        by=fields.get("by", ""),
        idle_s=seconds_of(record, "idle_ms") or 0.0,
        facts=_parse_facts(fields.get("facts", "")),
    )


def _parse_facts(text: str) -> dict[str, Any]:
    try:
        facts = json.loads(text) if text else {}
    except RECORD_ERRORS:
        return {}
    return facts_from_json(facts) if isinstance(facts, dict) else {}
