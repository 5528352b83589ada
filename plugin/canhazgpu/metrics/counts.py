"""What a node's history tells, counted since the counting began; pure.

A number belongs to a name and the values of its labels. All values are words of ours, so their
number is bounded whatever users do.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from canhazgpu.config.conflict_chain import StepKind
from canhazgpu.conflict.policy import CAUSE_GONE, ConflictCause
from canhazgpu.ledger.journal_entries import EPILOG, GRANT, PROLOG, QUARANTINE, RELEASE
from canhazgpu.ledger.owner import MANUAL, RUN
from canhazgpu.ledger.values import RECORD_ERRORS, Event

DURATION_BOUNDS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds of the classes in which hooks' durations are counted, in seconds."""
HOOKS = (PROLOG, EPILOG)
JOB = "job"
OTHER = "other"
"""Stands for a word that this release does not know."""
CAUSES = frozenset((CAUSE_GONE, *(one.name.lower() for one in ConflictCause)))
POLICIES = frozenset(one.value for one in StepKind)
BACK_TO_QUEUE = frozenset({StepKind.REQUEUE.value, StepKind.HOLD.value, StepKind.DRAIN.value})

REFUSED_CAUSES = ("busy", "queued", "obstructed", "never", "fault", "limit")
"""Why requests of people are refused."""

KINDS = frozenset({JOB, RUN, MANUAL})
LABELS: Mapping[str, Sequence[Collection[str]]] = {
    "grants": (KINDS,),
    "granted_gpus": (KINDS,),
    "released_gpus": (KINDS,),
    "refusals": (CAUSES,),
    "refused_requests": (REFUSED_CAUSES,),
    "conflicts": (POLICIES, CAUSES),
    "requeues": (),
    "quarantines": (),
    "store_outages": (),
    "local_decisions": (HOOKS,),
    "hook_duration": (HOOKS, tuple(map(str, (*DURATION_BOUNDS_S, "+Inf")))),
}
"""The names of numbers, and the words that each label may have beside `OTHER`."""
MAX_COUNT = 2**53
"""No node counts so far; a float has each number up to it."""

Key = tuple[str, ...]
"""The name of a number, then the values of its labels."""


@dataclass(slots=True)
class HistoryCounts:
    """The counts, and the id of the last event in them, "" for none.

    `outage` says that the last hook that said so decided without the store.
    """

    through: str = ""
    numbers: Counter[Key] = field(default_factory=Counter)
    seconds: dict[str, float] = field(default_factory=dict)
    outage: bool = False

    def add(self, events: Iterable[Event]) -> None:
        """Count these events, the earliest entries first, all of which are after `through`."""
        counted: set[tuple[str, str, str]] = set()
        for event in events:
            owner = event.claim.owner if event.claim else ""
            # One change of several GPUs is several events with one id.
            is_new = (event.id, event.kind, owner) not in counted
            counted.add((event.id, event.kind, owner))
            self._count(event, owner, is_new=is_new)
            self.through = event.id

    def add_refused(self, refused: Mapping[str, int]) -> None:
        """Count requests of people that were refused, by cause."""
        for cause, number in refused.items():
            self.numbers["refused_requests", cause if cause in REFUSED_CAUSES else OTHER] += number

    def _count(self, event: Event, owner: str, *, is_new: bool) -> None:
        kind = owner_kind(owner)
        if event.kind == GRANT:
            self.numbers["grants", kind] += is_new
            self.numbers["granted_gpus", kind] += 1
        elif event.kind == RELEASE:
            self.numbers["released_gpus", kind] += 1
        elif event.kind == QUARANTINE:
            self.numbers["quarantines",] += 1
        elif event.kind in HOOKS:
            self._count_hook(event.kind, event.facts)

    def _count_hook(self, hook: str, facts: Mapping[str, Any]) -> None:
        took_s = facts.get("took_s")
        if isinstance(took_s, (int, float)) and math.isfinite(took_s) and took_s >= 0:
            bound = next((one for one in DURATION_BOUNDS_S if took_s <= one), math.inf)
            self.numbers["hook_duration", hook, _bound_text(bound)] += 1
            self.seconds[hook] = self.seconds.get(hook, 0.0) + took_s
        conflict = facts.get("conflict")
        cause, policy, failed = _words(conflict if isinstance(conflict, dict) else {})
        if facts.get("outcome") == "refused":
            self.numbers["refusals", cause] += 1
        if policy:
            self.numbers["conflicts", policy, cause] += 1
            self.numbers["requeues",] += policy in BACK_TO_QUEUE and not failed
        without_store = bool(facts.get("without_store"))
        self.numbers["local_decisions", hook] += without_store
        self.numbers["store_outages",] += without_store and not self.outage
        self.outage = without_store

    def to_dict(self) -> dict[str, Any]:
        """Return the counts for JSON."""
        return {
            "through": self.through,
            "numbers": [[*key, number] for key, number in sorted(self.numbers.items()) if number],
            "seconds": dict(self.seconds),
            "outage": self.outage,
        }


def published_counts(text: str) -> HistoryCounts | None:
    """Return the counts that a node has published; None for what is none.

    Of what it published only what it counts itself is taken, so the values of labels are words of
    ours whatever a node says.
    """
    try:
        given = counts_from_dict(json.loads(text))
    except (*RECORD_ERRORS, AttributeError):
        return None
    numbers: Counter[Key] = Counter()
    for (name, *values), number in given.numbers.items():
        words = LABELS.get(name)
        if words is not None and len(words) == len(values) and 0 <= number < MAX_COUNT:
            pairs = zip(values, words, strict=True)
            numbers[name, *(value if value in some else OTHER for value, some in pairs)] += number
    seconds = {
        hook: time_s
        for hook, time_s in given.seconds.items()
        if hook in HOOKS and 0 <= time_s < MAX_COUNT
    }
    return HistoryCounts("", numbers, seconds)


def counts_from_dict(data: Mapping[str, Any]) -> HistoryCounts:
    """Return what `to_dict` gave; raises one of `RECORD_ERRORS` for anything else."""
    numbers: Counter[Key] = Counter()
    for *words, number in data["numbers"]:
        numbers[tuple(map(str, words))] += int(number)
    seconds = {str(hook): float(time_s) for hook, time_s in data["seconds"].items()}
    return HistoryCounts(str(data["through"]), numbers, seconds, bool(data["outage"]))


def owner_kind(owner: str) -> str:
    """Return ``job``, ``run`` or ``manual`` by the owner's token, ``other`` for anything else."""
    kind = owner.partition(":")[0]
    return kind if kind in (JOB, RUN, MANUAL) else OTHER


def duration_buckets(counts: HistoryCounts, hook: str) -> list[tuple[str, float]]:
    """Return the cumulative numbers of the hook's runs, by upper bound in seconds."""
    buckets, below = [], 0.0
    for bound in (*DURATION_BOUNDS_S, math.inf):
        below += counts.numbers["hook_duration", hook, _bound_text(bound)]
        buckets.append((_bound_text(bound), below))
    return buckets


def _bound_text(bound: float) -> str:
    return "+Inf" if math.isinf(bound) else str(bound)


def _words(conflict: Mapping[str, Any]) -> tuple[str, str, bool]:
    """Return cause and policy of a conflict, and whether the policy failed; words of ours only."""
    cause, policy = conflict.get("cause"), conflict.get("policy")
    return (
        cause if isinstance(cause, str) and cause in CAUSES else OTHER,
        policy if isinstance(policy, str) and policy in POLICIES else "",
        conflict.get("failed") is True,
    )
