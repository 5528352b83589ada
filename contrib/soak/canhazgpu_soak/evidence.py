"""All that is judged, what was promised, and what a judge finds: values; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from canhazgpu_soak.records import JOB, RESERVE, RUN, Answer, Holder, HookRun, Look, Request, Rogue


@dataclass(frozen=True, slots=True)
class Downtime:
    """A node was switched off, from when to when its agent served again."""

    node: str
    began: float
    until: float


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that was recorded.

    `put_backs` are the times at which the store got an old copy of its data.
    """

    holders: Sequence[Holder] = ()
    rogues: Sequence[Rogue] = ()
    hooks: Sequence[HookRun] = ()
    requests: Sequence[Request] = ()
    answers: Sequence[Answer] = ()
    looks: Sequence[Look] = ()
    put_backs: Sequence[float] = ()
    downtimes: Sequence[Downtime] = ()


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
