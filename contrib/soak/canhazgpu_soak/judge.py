"""Find what must not be, in what tasks, hooks and the soak recorded; pure.

A finding is certain: a holder counts from its first to its last sign of life and no longer, and a
rogue process from when it was seen on its GPU. What happened between two signs may stay unseen.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from canhazgpu_soak.evidence import Evidence, Finding, Promises
from canhazgpu_soak.late_releases import late_releases
from canhazgpu_soak.records import (
    AVAILABLE,
    JOB,
    PROLOG,
    Holder,
    Request,
)

TWO_HOLDERS = "two holders of one GPU at a time"
ON_A_ROGUE = "user code started on a GPU in use without reservation"
CONTRADICTION = "answers of status that a task contradicts"
TRACEBACK = "commands with a traceback"
HUNG_COMMAND = "commands that hung"
NEVER = float("-inf")


def judge(evidence: Evidence, promises: Promises) -> list[Finding]:
    """Return all violations, in the order of their times."""
    found = [
        *two_holders(evidence.holders),
        *started_on_rogues(evidence),
        *late_releases(evidence, promises),
        *contradictions(evidence),
        *failed_commands(evidence.requests),
    ]
    return sorted(found, key=lambda one: one.at)


def two_holders(holders: Iterable[Holder]) -> Iterator[Finding]:
    """Yield the pairs of different owners that had a GPU at one time."""
    by_gpu: dict[tuple[str, str], list[Holder]] = defaultdict(list)
    for holder in holders:
        for gpu in set(holder.gpus):
            by_gpu[holder.node, gpu].append(holder)
    for (node, gpu), having in by_gpu.items():
        pairs = set[tuple[str, str]]()
        live: list[Holder] = []
        for holder in sorted(having, key=lambda one: one.began):
            live = [one for one in live if one.last_seen > holder.began]
            others = [one for one in live if one.owner != holder.owner]
            if _have_room(holder, others):
                others = []
            for other in others:
                pair = (other.owner, holder.owner)
                if pair not in pairs:
                    pairs.add(pair)
                    text = f"{node} {gpu}: {_span(other)} and {_span(holder)}"
                    yield Finding(TWO_HOLDERS, holder.began, text)
            live.append(holder)


def _have_room(holder: Holder, others: Sequence[Holder]) -> bool:
    """Whether a GPU is enough for the shares of all of them; an owner's tasks have one share."""
    shares = {one.owner: one.share for one in [*others, holder]}
    return sum(shares.values()) <= 1.0


def started_on_rogues(evidence: Evidence) -> Iterator[Finding]:
    """Yield the holders that started on a GPU whose rogue had begun before the second look.

    Where no agent noted that look, the rogue had begun before they even asked.
    """
    asked = _AskedTimes(evidence)
    for holder in evidence.holders:
        since = asked.of(holder)
        for rogue in evidence.rogues:
            is_there = rogue.node == holder.node and rogue.gpu in holder.gpus
            if is_there and rogue.began < since and rogue.ended > holder.began:
                text = (
                    f"{rogue.node} {rogue.gpu}: {_span(holder)}, looked at from {since:.2f}; "
                    f"the rogue was there from {rogue.began:.2f} to {rogue.ended:.2f}"
                )
                yield Finding(ON_A_ROGUE, holder.began, text)


class _AskedTimes:
    """When the second look for a holder began; else when it, or its prolog there, asked."""

    def __init__(self, evidence: Evidence) -> None:
        self._requests = {request.key: request.began for request in evidence.requests}
        self._prologs: dict[tuple[str, str], list[float]] = defaultdict(list)
        for run in sorted(evidence.hooks, key=lambda one: one.at):
            if run.hook == PROLOG:
                self._prologs[run.node, f"job:{run.job}"].append(run.at)
        self._looks: dict[tuple[str, str], list[float]] = defaultdict(list)
        for look in evidence.looks:
            self._looks[look.node, look.key].append(look.at)

    def of(self, holder: Holder) -> float:
        asked = self._asked(holder)
        looks = self._looks[holder.node, holder.key]
        return max((at for at in looks if asked < at <= holder.began), default=asked)

    def _asked(self, holder: Holder) -> float:
        if holder.kind != JOB:
            return self._requests.get(holder.key, NEVER)
        before = self._prologs[holder.node, holder.key]
        position = bisect_right(before, holder.began)
        return before[position - 1] if position else NEVER


def contradictions(evidence: Evidence) -> Iterator[Finding]:
    """Yield the answers that called a GPU available which a task had all the time."""
    for answer in evidence.answers:
        free = {gpu.gpu for gpu in answer.gpus if gpu.state == AVAILABLE}
        for holder in evidence.holders:
            has_it = holder.began < answer.asked and holder.last_seen > answer.answered
            wrong = free.intersection(holder.gpus)
            if wrong and has_it and holder.node == answer.node and holder.is_checked:
                text = f"{answer.node} {', '.join(sorted(wrong))} was available; {_span(holder)}"
                yield Finding(CONTRADICTION, answer.asked, text)


def failed_commands(requests: Iterable[Request]) -> Iterator[Finding]:
    """Yield the commands that ended with a traceback, or not at all."""
    for one in requests:
        if one.has_traceback:
            yield Finding(TRACEBACK, one.began, f"{one.key}, status {one.status}")
        if one.ended is None:
            yield Finding(HUNG_COMMAND, one.began, one.key)


def _span(holder: Holder) -> str:
    unchecked = "" if holder.is_checked else " (not checked)"
    return f"{holder.owner} from {holder.began:.2f} to {holder.last_seen:.2f}{unchecked}"
