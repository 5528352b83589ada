"""Compare the indexes and what was counted with the nodes' own keys, and repair what differs.

A node's history, reservations and queue are the truth; record 50 says what follows from them. It
takes a login that may list keys and write all nodes' keys: the administrator's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.ledger.gpu_use import use_by_day
from canhazgpu.ledger.store import keys
from canhazgpu.ledger.store.history.entries import events_from_entry, short_names
from canhazgpu.ledger.store.history.reading import StreamEntry
from canhazgpu.ledger.store.indexes.lookup import is_wrong_type
from canhazgpu.ledger.store.indexes.upkeep import USER_DAYS, keep_indexes, present_hints, told_hints
from canhazgpu.ledger.store.totals.usage import NO_ENTRY, USE, stream_position
from canhazgpu.ledger.usage import DAY_S, ENDED, HELD, Amounts, usage_by_day
from canhazgpu.ledger.values import RECORD_ERRORS, Event

if TYPE_CHECKING:
    from canhazgpu.ledger.store.keys import Hint, NodeKeys
    from canhazgpu.ledger.store.session import StoreSession

KEYS_PER_READ = 1000
ENTRIES_PER_READ = 2000
MEMBERS_PER_READ = 5000
ROUNDED_MS = 1000
"""How much the two ways of adding up may differ for a user on a day."""
ROUNDED_MS_EACH = 10
"""The same for each release on that day."""
MAX_UPKEEPS = 1000


@dataclass(frozen=True, slots=True)
class IndexProblem:
    """Something that differs: `where` is a node or a key, `detail` says what it is in words."""

    where: str
    detail: str


@dataclass(frozen=True, slots=True)
class Trimmed:
    """What was removed because it was old, or no hint: whole keys, and members of others."""

    keys: int
    members: int


class IndexCheck:
    """Checks and repairs the indexes of one store."""

    def __init__(self, session: StoreSession, prefix: str, history_days: int) -> None:
        self._session = session
        self._prefix = prefix
        self._history_days = history_days

    def damaged_keys(self) -> list[str]:
        """Return the keys of indexes that are no sets; nothing can be added to them."""
        return [key for some in self._index_keys() for key, kind in some if kind != "set"]

    def remove(self, damaged: Sequence[str]) -> None:
        """Remove these keys; what they should have, each node's check adds again."""
        with self._session.client() as client:
            for key in damaged:
                client.delete(key)

    def node_problems(self, node: str) -> list[IndexProblem]:
        """Return what the indexes lack of the node, and what differs in what it has counted."""
        missing = self._missing_hints(node)
        found = []
        for what, some in (("jobs", missing.jobs), ("users", missing.users)):
            if some:
                found.append(IndexProblem(node, f"the index of {what} lacks {len(some)} entries"))
        if wrong := self._usage_problem(node, missing.events):
            found.append(IndexProblem(node, wrong))
        return found

    def is_marked(self, node: str) -> bool:
        """Tell whether the node's entries count as complete; else questions read it in full."""
        with self._session.client() as client:
            return bool(client.exists(self._keys(node).indexed))

    def repair_node(self, node: str) -> None:
        """Add what the indexes lack of the node; count its history anew where that differs.

        Each step may be repeated, and what the node itself does meanwhile is not lost.
        """
        missing = self._missing_hints(node)
        self._session.add_hints(missing.jobs, (self._history_days + 2) * DAY_S)
        self._session.add_hints(missing.users, USER_DAYS * DAY_S)
        found = self._keys(node)
        if self._usage_problem(node, missing.events):
            with self._session.client() as client:
                # First, as a key of another type ends every script of the node.
                client.delete(found.usage, found.indexed)
            self._session.run_script("recount_usage", found)
        for _ in range(MAX_UPKEEPS):
            if self.is_marked(node):
                return
            keep_indexes(self._session, node, found, self._prefix, self._history_days)

    def trim(self) -> Trimmed:
        """Remove what is older than it would be kept where the nodes' logins could say so."""
        with self._session.client() as client:
            today = client.time()[0] // DAY_S
        removed_keys = removed_members = 0
        for some in self._index_keys():
            for key, kind in some:
                if kind != "set":
                    continue
                if self._is_old_key(key, today):
                    with self._session.client() as client:
                        removed_keys += int(client.unlink(key))
                elif jobs_block(key, self._prefix) is not None:
                    removed_members += self._trim_jobs(key, today - self._history_days - 2)
        return Trimmed(removed_keys, removed_members)

    def _is_old_key(self, key: str, today: int) -> bool:
        """Tell whether a user's key is older than it is kept, or the key is no index of ours."""
        day = user_day(key, self._prefix)
        if day is not None:
            return not today - USER_DAYS <= day <= today + 1
        return jobs_block(key, self._prefix) is None

    def _trim_jobs(self, key: str, oldest_day: int) -> int:
        removed, cursor = 0, 0
        with self._session.client() as client:
            while True:
                cursor, members = cast(Any, client.sscan(key, cursor, count=MEMBERS_PER_READ))
                old = [one for one in members if not _is_kept(one, oldest_day)]
                if old:
                    removed += int(client.srem(key, *old))
                if not cursor:
                    return removed

    def _index_keys(self) -> Iterator[list[tuple[str, str]]]:
        """Yield the keys of all indexes with their types, some at a time."""
        with self._session.client() as client:
            found = client.scan_iter(keys.indexes_pattern(self._prefix), count=KEYS_PER_READ)
            some: list[str] = []
            for key in found:
                some.append(cast(str, key))
                if len(some) == KEYS_PER_READ:
                    yield self._with_types(client, some)
                    some = []
            yield self._with_types(client, some)

    def _with_types(self, client: Any, some: Sequence[str]) -> list[tuple[str, str]]:
        pipeline = client.pipeline(transaction=False)
        for key in some:
            pipeline.type(key)
        kinds = pipeline.execute() if some else []
        return [pair for pair in zip(some, kinds, strict=True) if pair[1] != "none"]

    def _keys(self, node: str) -> NodeKeys:
        return keys.node_keys(node, self._prefix)

    def _missing_hints(self, node: str) -> _Missing:
        now_s, jobs, users = self._present_hints(node)
        missing = _Missing(self._absent(jobs), self._absent(users), [])
        for events in self._history(node):
            told_jobs, told_users = told_hints(events, self._prefix, node, now_s)
            missing.jobs.extend(self._absent(told_jobs))
            missing.users.extend(self._absent(told_users))
            missing.events.extend(events)
        return missing

    def _present_hints(self, node: str) -> tuple[int, list[Hint], list[Hint]]:
        found = self._keys(node)
        with self._session.client() as client:
            pipeline = client.pipeline(transaction=False)
            pipeline.hgetall(found.reservations)
            pipeline.hgetall(found.queue)
            reservations, queue = pipeline.execute()
            now_s = client.time()[0]
        jobs, users = present_hints(self._prefix, node, now_s, reservations, queue)
        return now_s, [*jobs], [*users]

    def _history(self, node: str) -> Iterator[list[Event]]:
        found, start = self._keys(node), "-"
        while True:
            with self._session.client() as client:
                pipeline = client.pipeline(transaction=False)
                pipeline.xrange(found.history, start, "+", count=ENTRIES_PER_READ)
                pipeline.hgetall(found.history_meta)
                page, meta = cast(tuple[list[StreamEntry], dict[str, str]], pipeline.execute())
            names = short_names(meta)
            yield [one for entry in page for one in events_from_entry(*entry, names)]
            if len(page) < ENTRIES_PER_READ:
                return
            start = f"({page[-1][0]}"

    def _absent(self, hints: Iterable[Hint]) -> list[Hint]:
        """Return those that are not in their indexes; all of a key that is no set."""
        wanted = list(hints)
        with self._session.client() as client:
            pipeline = client.pipeline(transaction=False)
            for key, member in wanted:
                pipeline.sismember(key, member)
            answers = pipeline.execute(raise_on_error=False) if wanted else []
        for one in answers:
            if isinstance(one, Exception) and not is_wrong_type(one):
                raise one
        return [hint for hint, known in zip(wanted, answers, strict=True) if known != 1]

    def _usage_problem(self, node: str, events: Sequence[Event]) -> str:
        """Return what the node has not counted of these events, its whole history; "" for nothing.

        What it has counted beyond them is no problem: a history is trimmed, totals are kept.
        """
        with self._session.client() as client:
            # After the history: what was released since is in it, too.
            pipeline = client.pipeline(transaction=False)
            pipeline.hgetall(self._keys(node).usage)
            (usage,) = pipeline.execute(raise_on_error=False)
        if isinstance(usage, Exception):
            if not is_wrong_type(usage):
                raise usage
            return "what it has counted is no hash"
        if not usage:
            return ""
        return usage_problem(usage, usage_by_day(events)) or use_problem(usage, use_by_day(events))


@dataclass(frozen=True, slots=True)
class _Missing:
    jobs: list[Hint]
    users: list[Hint]
    events: list[Event]


def usage_problem(usage: Mapping[str, str], told: Mapping[int, Mapping[str, Amounts]]) -> str:
    """Return what the totals (``scripts/usage.lua``) lack of what was told, by day; "" for nothing.

    The first day is left out: the history may begin in its middle.
    """
    return _problem(usage, {day: told[day] for day in sorted(told)[1:]})


def use_problem(usage: Mapping[str, str], told: Mapping[int, Mapping[str, Amounts]]) -> str:
    """Return the same of what the driver told of the use.

    Its totals begin with the first day of which it told anything.
    """
    of_use = {name.removeprefix(USE): text for name, text in usage.items() if name.startswith(USE)}
    known = {name: usage.get(name, "") for name in ("through", "from")}
    found = _problem({"day": "0", "total": "{}", **of_use, **known}, told, before_first="{}")
    return f"{found} (what jobs made of their GPUs)" if found else ""


def _problem(
    usage: Mapping[str, str],
    told: Mapping[int, Mapping[str, Amounts]],
    before_first: str | None = None,
) -> str:
    try:
        through, counted_from = usage.get("through") or NO_ENTRY, usage.get("from") or NO_ENTRY
        if stream_position(through) < stream_position(counted_from):
            return ""  # reports read its history
        for name, text in usage.items():
            if name == "total" or name.isdecimal():
                _totals(text)
        for day, of_users in told.items():
            counted = _counted_on(usage, day, before_first)
            if counted is None:
                continue
            for key, amounts in of_users.items():
                if _is_less(counted.get(key, [0] * 6), amounts):
                    return f"it has not counted all that its history tells of day {day}"
    except (*RECORD_ERRORS, AttributeError, IndexError):
        return "what it has counted cannot be read"
    return ""


def _is_less(counted: Amounts, told: Amounts) -> bool:
    # In both kinds of totals these places have how many ended, and for how long they held.
    rounded_ms = ROUNDED_MS + ROUNDED_MS_EACH * told[ENDED]
    return counted[ENDED] < told[ENDED] or counted[HELD] < told[HELD] - rounded_ms


def _counted_on(
    usage: Mapping[str, str], day: int, before_first: str | None
) -> dict[str, Amounts] | None:
    """Return the difference of two totals; None where the node has not both."""
    last = usage.get("total") if day >= int(usage["day"]) else usage.get(str(day))
    before = usage.get(str(day - 1), before_first)
    if last is None or before is None:
        return None
    old = _totals(before)
    return {
        key: [a - b for a, b in zip(sums, old.get(key, [0] * 6), strict=True)]
        for key, sums in _totals(last).items()
    }


def _totals(text: str) -> dict[str, Amounts]:
    """Return the totals; raises one of `RECORD_ERRORS` for a text that has none."""
    found: dict[str, Amounts] = json.loads(text)
    for sums in found.values() if isinstance(found, dict) else [None]:
        if (
            not isinstance(sums, list)
            or len(sums) != 6
            or not all(type(one) is int for one in sums)
        ):
            raise TypeError("no totals")
    return found


def jobs_block(key: str, prefix: str) -> int | None:
    """Return the number in the key of an index of jobs; None for another key."""
    found = re.fullmatch(r"index:jobs:([0-9]{1,19})", key.removeprefix(f"{prefix}:"))
    return int(found[1]) if found else None


def user_day(key: str, prefix: str) -> int | None:
    """Return the day of the key of a user's index; None for another key."""
    found = re.fullmatch(r"index:user:-?[0-9]{1,10}:([0-9]{1,6})", key.removeprefix(f"{prefix}:"))
    return int(found[1]) if found else None


def _is_kept(member: str, oldest_day: int) -> bool:
    parts = member.split(" ")
    if len(parts) != 3 or not (parts[0].isdecimal() and keys.is_node_name(parts[1])):
        return False
    day = parts[2]
    return day.isascii() and day.isdecimal() and len(day) < 7 and int(day) >= oldest_day
