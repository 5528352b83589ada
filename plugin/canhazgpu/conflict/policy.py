"""Which step of its chain comes next for a job whose GPUs cannot be granted; pure.

A step that cannot help is passed over: nobody waits for a quarantine to end, and no process is
ended whose end would not free the job's GPUs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

from canhazgpu.config.conflict_chain import CHAIN_END, Chain, Step, StepKind


class Cause(Enum):
    """Why a GPU cannot be granted."""

    UNRESERVED = "unreserved"
    """Somebody uses it without a reservation."""
    RESERVED = "reserved"
    """Another job or a person has it."""
    QUARANTINED = "quarantined"
    """It is held back."""
    UNREADABLE = "unreadable"
    """Its own state cannot be read."""
    ABSENT = "absent"
    """The driver does not show it."""
    BLIND = "blind"
    """None of the node's GPUs can be read."""
    OURS = "ours"
    """A fault of canhazgpu itself: its store, its configuration, its time."""


PASSING = frozenset({Cause.UNRESERVED, Cause.RESERVED})
"""Causes that may be over in seconds."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of the conflict when the next step is chosen.

    `requeues` counts those that canhazgpu ordered for this job. `can_swap`, `can_kill` and
    `can_warn` tell what would work on this node now; `can_requeue` turns false once the scheduler
    refused.
    """

    causes: frozenset[Cause]
    requeues: int = 0
    max_requeues: int = 1
    can_swap: bool = False
    can_kill: bool = False
    can_warn: bool = False
    can_requeue: bool = True


def next_step(chain: Chain, place: int, facts: Facts) -> tuple[int, Step]:
    """Return the first step from `place` on that may help, and its place.

    Places count on through `CHAIN_END`, whose last step always applies.
    """
    steps = (*chain, *CHAIN_END)
    for number in range(place, len(steps)):
        if _APPLIES[steps[number].kind](facts):
            return number, steps[number]
    return len(steps) - 1, steps[-1]


def _waits(facts: Facts) -> bool:
    return bool(facts.causes) and facts.causes <= PASSING


def _swaps(facts: Facts) -> bool:
    return facts.can_swap and facts.causes.isdisjoint({Cause.BLIND, Cause.OURS})


def _kills(facts: Facts) -> bool:
    return facts.can_kill and facts.causes == {Cause.UNRESERVED}


def _requeues(facts: Facts) -> bool:
    # What is our own fault ends with it, for all jobs at once; none is to be found held then.
    return facts.can_requeue and (Cause.OURS in facts.causes or facts.requeues < facts.max_requeues)


def _drains(facts: Facts) -> bool:
    return Cause.OURS not in facts.causes


def _warns(facts: Facts) -> bool:
    # No two ever get one GPU: a reserved one is its holder's, whatever the chain says.
    return facts.can_warn and facts.causes.isdisjoint({Cause.RESERVED, Cause.ABSENT})


def _holds(facts: Facts) -> bool:
    return facts.can_requeue


def _ends(_facts: Facts) -> bool:
    return True


_APPLIES: Mapping[StepKind, Callable[[Facts], bool]] = {
    StepKind.WAIT: _waits,
    StepKind.SWAP: _swaps,
    StepKind.KILL: _kills,
    StepKind.REQUEUE: _requeues,
    StepKind.DRAIN: _drains,
    StepKind.WARN: _warns,
    StepKind.HOLD: _holds,
    StepKind.END: _ends,
}
