"""Find what must not be, in what tasks, hooks and the soak recorded. Pure.

A finding is certain: a holder counts from its first to its last sign of life and no longer, and a
rogue process from when it was seen on its GPU. What happened between two signs may stay unseen.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from canhazgpu_soak.records import (
    AVAILABLE,
    EPILOG,
    JOB,
    PROLOG,
    RESERVE,
    RUN,
    RUNNING,
    Answer,
    Holder,
    HookRun,
    Look,
    Request,
    Rogue,
)

TWO_HOLDERS = "two holders of one GPU at a time"
ON_A_ROGUE = "user code started on a GPU in use without reservation"
LATE = "reservations that outlived their owner"
CONTRADICTION = "answers of status that a task contradicts"
TRACEBACK = "commands with a traceback"
HUNG_COMMAND = "commands that hung"
LONGEST_PROLOG_S = 60.0
NEVER = float("-inf")
CONTROLLER = "slurmctld"


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that was recorded."""

    holders: Sequence[Holder] = ()
    rogues: Sequence[Rogue] = ()
    hooks: Sequence[HookRun] = ()
    requests: Sequence[Request] = ()
    answers: Sequence[Answer] = ()
    looks: Sequence[Look] = ()


@dataclass(frozen=True, slots=True)
class Promises:
    """How long a reservation may outlive its owner, in seconds, by the kind of the owner.

    `slack_s` is added for the faults, which hold up whoever is to release it.
    """

    release_s: Mapping[str, float] = field(
        default_factory=lambda: {JOB: 10.0, RUN: 5.0, RESERVE: 0.0}
    )
    slack_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One violation: what kind, when, and who is concerned."""

    kind: str
    at: float
    text: str


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


def by_the_stores_clock(
    holders: Iterable[Holder], steps: Sequence[tuple[float, float]]
) -> list[Holder]:
    """Return the holders, whose reservations by hand end sooner where that clock was set forward.

    The end of such a reservation is a time of day by the store's clock, which everybody sees.
    `steps` are when it was set, in order, and by how many seconds.
    """
    return [_ended_by_steps(one, steps) if one.kind == RESERVE else one for one in holders]


def _ended_by_steps(holder: Holder, steps: Sequence[tuple[float, float]]) -> Holder:
    for at, step_s in steps:
        if holder.began <= at < holder.last_seen and step_s > 0:
            holder = replace(holder, last_seen=max(at, holder.last_seen - step_s))
    return holder


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


def late_releases(evidence: Evidence, promises: Promises) -> Iterator[Finding]:
    """Yield each reservation that `status` showed too long after its owner's last sign of life."""
    worst: dict[str, tuple[float, float]] = {}
    for key, at, late_s in outlived(evidence):
        if late_s > promises.release_s[key.partition(":")[0]] + promises.slack_s:
            worst[key] = max(worst.get(key, (0.0, at)), (late_s, at))
    for key, (late_s, at) in worst.items():
        yield Finding(LATE, at, f"{key} was reserved {late_s:.1f} s after its end")


def outlived(evidence: Evidence) -> Iterator[tuple[str, float, float]]:
    """Yield for each reservation in each answer: its key, the time, seconds since the last sign."""
    signs = _signs_of_life(evidence)
    for answer in evidence.answers:
        for key in {key for gpu in answer.gpus for key in gpu.keys}:
            late_s = min(
                (_seconds_after(span, answer) for span in signs[key]),
                default=float("inf"),
            )
            yield key, answer.asked, late_s


def _signs_of_life(evidence: Evidence) -> dict[str, list[tuple[float, float]]]:
    signs: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for holder in evidence.holders:
        signs[holder.key].append((holder.began, holder.last_seen))
    for run in evidence.hooks:
        signs[f"job:{run.job}"].append((run.at, run.at))
    for request in evidence.requests:
        ended = float("inf") if request.ended is None else request.ended
        until = ended if request.holds_until is None else max(ended, request.holds_until)
        signs[request.key].append((request.began, until))
    return signs


def _seconds_after(span: tuple[float, float], answer: Answer) -> float:
    """Return how long the span was over when the answer was asked for.

    What began until the answer came may be in it.
    """
    began, ended = span
    return float("inf") if began > answer.answered else max(0.0, answer.asked - ended)


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


def lost_launches(
    hung: Iterable[str],
    evidence: Evidence,
    restarts: Sequence[tuple[str, float]],
    reboots: Sequence[tuple[str, float]] = (),
) -> list[str]:
    """Return those of the hung jobs that were lost with a daemon, by Slurm's own fault.

    `hung` are lines of job, state and reason; `restarts` name a node's slurmd, or slurmctld. Such a
    job began its prolog, or without one was said to run, shortly before the daemon was stopped, or
    at any time before a reboot, and has had no task since: the next slurmd knows nothing of it, and
    the next slurmctld takes its batch script for started.
    """
    ends = [(daemon, at, LONGEST_PROLOG_S) for daemon, at in restarts]
    ends += [(node, at, float("inf")) for node, at in reboots]
    lost = []
    for line in hung:
        job, _, state = line.partition(" ")
        begun = _begins_of_last_attempt(job, evidence.hooks)
        seen = [one.last_seen for one in evidence.holders if one.key == f"job:{job}"]
        is_lost = any(
            daemon in (run.node or daemon, CONTROLLER) and 0 <= at - run.at <= within_s
            for run in begun
            for daemon, at, within_s in ends
            if max(seen, default=NEVER) <= at
        )
        if state.startswith("RUNNING") and is_lost:
            lost.append(line)
    return lost


def _begins_of_last_attempt(job: str, hooks: Sequence[HookRun]) -> list[HookRun]:
    """Return when the job's prologs began; where Slurm started none, when it called it running."""
    own = sorted((run for run in hooks if run.job == job), key=lambda run: run.at)
    ended = max((run.at for run in own if run.hook == EPILOG), default=NEVER)
    since = [run for run in own if run.at > ended]
    prologs = [run for run in since if run.hook == PROLOG]
    return prologs or [run for run in since if run.hook == RUNNING][:1]


def _span(holder: Holder) -> str:
    unchecked = "" if holder.is_checked else " (not checked)"
    return f"{holder.owner} from {holder.began:.2f} to {holder.last_seen:.2f}{unchecked}"
