"""Keep a node's entries in the indexes complete, and take over what an earlier release has told.

The node's health check calls this. It adds again what is held and waits, and all that the history
tells since the last time: so nothing stays lost of what was killed, or done by another release.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, cast

from canhazgpu.ledger.gpu_use import use_by_day
from canhazgpu.ledger.record_json import queue_from_hash, reservation_from_json, to_json
from canhazgpu.ledger.store.history.entries import ShortNames, events_from_entry, short_names
from canhazgpu.ledger.store.history.reading import StreamEntry
from canhazgpu.ledger.store.history.stream_id import NO_ENTRY, stream_position
from canhazgpu.ledger.store.indexes.hints import Hints
from canhazgpu.ledger.usage import DAY_S, Amounts, usage_by_day
from canhazgpu.ledger.values import Event

if TYPE_CHECKING:
    from canhazgpu.ledger.store.keys import NodeKeys
    from canhazgpu.ledger.store.session import StoreSession

ENTRIES_PER_CHECK = 4000
"""Entries of the history that one health check reads at most; some ten a day are usual."""
COMPLETE_S = 2 * DAY_S
"""For so long after a check the node's entries count as complete."""
CHECK_EVERY_S = 3600
"""The entries are brought up to date so often; health checks are made more often."""
USER_DAYS = 9
"""For so many days it is kept which users a node had."""


def keep_indexes(
    session: StoreSession, node: str, keys: NodeKeys, prefix: str, history_days: int
) -> None:
    """Bring the node's entries up to date, at most `ENTRIES_PER_CHECK` of its history.

    Does nothing, in one round trip, where that was done within `CHECK_EVERY_S`. Of entries that an
    earlier release has put into the index of jobs, it adds the runs and reservations by hand.
    """
    with session.client() as client:
        pipeline = client.pipeline(transaction=False)
        pipeline.hmget(keys.usage, "through", "from", "owners")
        pipeline.ttl(keys.indexed)
        if not session.in_cluster:
            pipeline.time()
        # In a cluster it is no command of a pipeline.
        (through, counted_from, owners), complete_for_s, *times = pipeline.execute()
        seconds, _ = times[0] if times else client.time()
        if complete_for_s > COMPLETE_S - CHECK_EVERY_S:
            return
        start = f"({through or NO_ENTRY}"
        pipeline.xrange(keys.history, start, "+", count=ENTRIES_PER_CHECK)
        pipeline.hgetall(keys.history_meta)
        pipeline.hgetall(keys.reservations)
        pipeline.hgetall(keys.queue)
        # Entries that a release has indexed which knew no owners but jobs.
        lacks_owners = through and through != owners
        if lacks_owners:
            start = f"({owners or NO_ENTRY}"
            pipeline.xrange(keys.history, start, through, count=ENTRIES_PER_CHECK)
        page, meta, reservations, queue, *more = pipeline.execute()
    gap: list[StreamEntry] = more[0] if lacks_owners else []
    events = _events(cast(list[StreamEntry], page), short_names(meta))
    jobs, users = present_hints(prefix, node, seconds, reservations, queue)
    told_jobs, told_users = told_hints(
        [*_events(gap, short_names(meta)), *events], prefix, node, seconds
    )
    kept_s = (history_days + 2) * DAY_S
    may_add = session.add_hints([*jobs, *told_jobs], kept_s)
    if not (session.add_hints([*users, *told_users], USER_DAYS * DAY_S) and may_add):
        return
    last = cast(str, page[-1][0]) if page else through or NO_ENTRY
    is_complete = len(page) < ENTRIES_PER_CHECK
    owners_through = gap[-1][0] if len(gap) == ENTRIES_PER_CHECK else last
    limit = stream_position(counted_from or NO_ENTRY)
    uncounted = [one for one in events if stream_position(one.id) <= limit]
    (first, days), (first_use, uses) = map(
        _in_a_row, (usage_by_day(uncounted), use_by_day(uncounted))
    )
    session.run_script(
        "index_history",
        keys,
        through or "",
        last,
        first,
        to_json(days),
        COMPLETE_S if is_complete else 0,
        first_use,
        to_json(uses),
        owners_through,
    )


def present_hints(
    prefix: str,
    node: str,
    now_s: int,
    reservations: Mapping[str, str],
    queue: Mapping[str, str],
) -> tuple[Hints, Hints]:
    """Return the hints on jobs and on users that the node's present records give."""
    jobs, users = Hints(prefix, node, now_s), Hints(prefix, node, now_s)
    for gpu, text in reservations.items():
        for one in reservation_from_json(gpu, text).holders:
            jobs.add_owner(one.claim.owner)
            users.add_user(one.claim.uid)
    for waiter in queue_from_hash(queue, float(now_s)):
        users.add_user(waiter.uid)
    return jobs, users


def _events(page: Sequence[StreamEntry], names: ShortNames) -> list[Event]:
    return [one for entry in page for one in events_from_entry(*entry, names)]


def told_hints(
    events: Iterable[Event], prefix: str, node: str, now_s: int
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Return the hints on jobs and on users that the events give, each for the entry's day."""
    jobs: dict[tuple[str, str], None] = {}
    users: dict[tuple[str, str], None] = {}
    for event in events:
        told_s = stream_position(event.id)[0] / 1000
        on_jobs, on_users = Hints(prefix, node, told_s), Hints(prefix, node, told_s)
        on_jobs.add_checked_jobs(event.facts)
        if event.claim is not None:
            on_jobs.add_owner(event.claim.owner)
            # Of who joins the queue or leaves it, the history has no uid: the queue itself has.
            if told_s > now_s - USER_DAYS * DAY_S and event.kind not in ("wait", "leave"):
                on_users.add_user(event.claim.uid)
        jobs.update(dict.fromkeys(on_jobs))
        users.update(dict.fromkeys(on_users))
    return list(jobs), list(users)


def _in_a_row(by_day: Mapping[int, dict[str, Amounts]]) -> tuple[int, list[dict[str, Amounts]]]:
    """Return the first day, and what was used on each from it on."""
    if not by_day:
        return 0, []
    first = min(by_day)
    return first, [by_day.get(day, {}) for day in range(first, max(by_day) + 1)]
