"""Compare the indexes and what was counted with the nodes' own keys, and repair what differs.

A node's history, reservations and queue are the truth; record 50 says what follows from them. It
takes a login that may list keys and write all nodes' keys: the administrator's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, cast

from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.ledger.gpu_use import use_by_day
from canhazgpu.ledger.store import keys
from canhazgpu.ledger.store.history.entries import events_from_entry, short_names
from canhazgpu.ledger.store.history.reading import StreamEntry
from canhazgpu.ledger.store.indexes.index_keys import read_index_keys
from canhazgpu.ledger.store.indexes.lookup import is_wrong_type
from canhazgpu.ledger.store.indexes.upkeep import USER_DAYS, keep_indexes, present_hints, told_hints
from canhazgpu.ledger.store.totals.comparison import usage_problem, use_problem
from canhazgpu.ledger.usage import DAY_S, usage_by_day
from canhazgpu.ledger.values import Event

if TYPE_CHECKING:
    from canhazgpu.ledger.store.keys import Hint, NodeKeys
    from canhazgpu.ledger.store.session import StoreSession

ENTRIES_PER_READ = 2000
MAX_UPKEEPS = 1000


@dataclass(frozen=True, slots=True)
class NodeDifferences:
    """What the indexes lack of a node, and in `usage`, as words, what it has counted wrongly."""

    node: str
    jobs: tuple[Hint, ...]
    users: tuple[Hint, ...]
    usage: str

    @property
    def problems(self) -> tuple[str, ...]:
        """Each in words; none where nothing differs."""
        lacking = (("jobs", self.jobs), ("users", self.users))
        lacks = [f"the index of {what} lacks {len(some)} entries" for what, some in lacking if some]
        return (*lacks, self.usage) if self.usage else tuple(lacks)


class IndexCheck:
    """Checks and repairs what the indexes of one store have of its nodes."""

    def __init__(self, session: StoreSession, prefix: str, history_days: int) -> None:
        self._session = session
        self._prefix = prefix
        self._history_days = history_days

    def damaged_keys(self) -> list[str]:
        """Return the keys of indexes that are no sets; nothing can be added to them."""
        return [
            key
            for some in read_index_keys(self._session, self._prefix)
            for key, kind in some
            if kind != "set"
        ]

    def remove(self, damaged: Sequence[str]) -> None:
        """Remove these keys; what they should have, each node's check adds again."""
        with self._session.client() as client:
            for key in damaged:
                client.delete(key)

    def differences(self, node: str) -> NodeDifferences:
        """Return what the indexes lack of the node, and what differs in what it has counted."""
        now_s, jobs, users = self._present_hints(node)
        missing_jobs, missing_users = self._absent(jobs), self._absent(users)
        events: list[Event] = []
        for some in self._history(node):
            told_jobs, told_users = told_hints(some, self._prefix, node, now_s)
            missing_jobs.extend(self._absent(told_jobs))
            missing_users.extend(self._absent(told_users))
            events.extend(some)
        wrong = self._usage_problem(node, events)
        return NodeDifferences(node, tuple(missing_jobs), tuple(missing_users), wrong)

    def is_marked(self, node: str) -> bool:
        """Tell whether the node's entries count as complete; else questions read it in full."""
        with self._session.client() as client:
            return bool(client.exists(self._keys(node).indexed))

    def repair(self, found: NodeDifferences) -> None:
        """Add what the indexes lack of the node; count its history anew where that differs.

        Each step may be repeated, and what the node itself does meanwhile is not lost.
        """
        self._session.add_hints(found.jobs, (self._history_days + 2) * DAY_S)
        self._session.add_hints(found.users, USER_DAYS * DAY_S)
        node_keys = self._keys(found.node)
        if found.usage:
            with self._session.client() as client:
                # First, as a key of another type ends every script of the node.
                client.delete(node_keys.usage, node_keys.indexed)
            self._session.run_script("recount_usage", node_keys)
        for _ in range(MAX_UPKEEPS):
            if self.is_marked(found.node):
                return
            keep_indexes(self._session, found.node, node_keys, self._prefix, self._history_days)

    def _keys(self, node: str) -> NodeKeys:
        return keys.node_keys(node, self._prefix)

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
