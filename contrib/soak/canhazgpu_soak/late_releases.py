"""Find reservations that outlived their owner; pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from math import isfinite

from canhazgpu_soak.evidence import Downtime, Evidence, Finding, Promises
from canhazgpu_soak.records import RESERVE, Answer, Holder

LATE = "reservations that outlived their owner"


def late_releases(evidence: Evidence, promises: Promises) -> Iterator[Finding]:
    """Yield each reservation that `status` showed too long after its owner's last sign of life."""
    worst: dict[str, tuple[float, float]] = {}
    for key, at, late_s in outlived(evidence):
        if late_s > promises.release_s[key.partition(":")[0]] + promises.slack_s:
            worst[key] = max(worst.get(key, (0.0, at)), (late_s, at))
    for key, (late_s, at) in worst.items():
        yield Finding(LATE, at, f"{key} was reserved {late_s:.1f} s after its end")


def outlived(evidence: Evidence) -> Iterator[tuple[str, float, float]]:
    """Yield for each reservation in each answer: its key, the time, seconds since the last sign.

    What an old copy of the store brought back counts from then: it had been released in time. While
    its node was down nobody could release it.
    """
    signs = _signs_of_life(evidence)
    absent = _answers_without(evidence.answers)
    for answer in evidence.answers:
        for key in _keys_of(answer):
            late_s = min(
                (_seconds_after(span, answer) for span in signs[key]),
                default=float("inf"),
            )
            put_back = max((at for at in evidence.put_backs if at <= answer.answered), default=None)
            if (
                put_back is not None
                and isfinite(late_s)
                and any(answer.asked - late_s < at < put_back for at in absent(answer.node, key))
            ):
                late_s = max(0.0, answer.asked - put_back)
            yield key, answer.asked, late_s - _down_s(evidence.downtimes, answer, late_s)


def _down_s(downtimes: Iterable[Downtime], answer: Answer, late_s: float) -> float:
    """Return for how many of the last `late_s` seconds before the question the node was down."""
    if not isfinite(late_s):
        return 0.0
    since = answer.asked - late_s
    return sum(
        max(0.0, min(one.until, answer.asked) - max(one.began, since))
        for one in downtimes
        if one.node == answer.node
    )


def _answers_without(answers: Sequence[Answer]) -> Callable[[str, str], Iterator[float]]:
    """Return what yields when a node was asked and a key was not in its answer."""
    of_node: dict[str, list[tuple[float, set[str]]]] = defaultdict(list)
    for answer in answers:
        of_node[answer.node].append((answer.asked, _keys_of(answer)))
    return lambda node, key: (at for at, keys in of_node[node] if key not in keys)


def _keys_of(answer: Answer) -> set[str]:
    return {key for gpu in answer.gpus for key in gpu.keys}


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
