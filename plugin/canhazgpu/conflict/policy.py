"""The next step of the policy chain for a job whose GPUs cannot be granted; pure.

Steps that cannot help are skipped: a job does not wait for the end of a quarantine, and a process
is not ended where that would not free the job's GPUs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from enum import Enum

from canhazgpu.config.conflict_chain import CHAIN_END, Chain, Step, StepKind
from canhazgpu.frozen_dataclass import dataclass


class ConflictCause(Enum):
    """Why a GPU cannot be granted."""

    UNRESERVED = "unreserved"
    """It is in use without a reservation."""
    RESERVED = "reserved"
    """Another owner holds it."""
    QUARANTINED = "quarantined"
    """It is quarantined."""
    UNREADABLE = "unreadable"
    """It cannot be read."""
    ABSENT = "absent"
    """The driver does not show it."""
    NO_GPU_READABLE = "blind"
    """None of the node's GPUs can be read."""
    INTERNAL_FAULT = "ours"
    """A fault of canhazgpu itself: Redis away, a faulty configuration, a deadline."""


CAUSE_GONE = "gone"
"""Stands for a cause that was over when it was looked for."""


def main_cause(causes: Collection[ConflictCause]) -> str:
    """Return one of the causes in a word, the first of those above; `CAUSE_GONE` without any."""
    return next((one.name.lower() for one in ConflictCause if one in causes), CAUSE_GONE)


TRANSIENT_CAUSES = frozenset({ConflictCause.UNRESERVED, ConflictCause.RESERVED})
"""Causes that may end within seconds."""


@dataclass(frozen=True, slots=True)
class ConflictFacts:
    """The facts by which the next step is chosen.

    `requeues` counts the requeues of this job by canhazgpu. `can_swap`, `can_kill` and `can_warn`
    say which steps would work on this node now. `can_requeue` is false once the scheduler refused.
    """

    causes: frozenset[ConflictCause]
    requeues: int = 0
    max_requeues: int = 1
    can_swap: bool = False
    can_kill: bool = False
    can_warn: bool = False
    can_requeue: bool = True


def next_step(chain: Chain, index: int, facts: ConflictFacts) -> tuple[int, Step]:
    """Return the first step from `index` on that may help, after its index.

    The index continues through `CHAIN_END`, whose last step always applies.
    """
    steps = (*chain, *CHAIN_END)
    for number in range(index, len(steps)):
        if _STEP_APPLIES[steps[number].kind](facts):
            return number, steps[number]
    return len(steps) - 1, steps[-1]


def _wait_applies(facts: ConflictFacts) -> bool:
    return bool(facts.causes) and facts.causes <= TRANSIENT_CAUSES


def _swap_applies(facts: ConflictFacts) -> bool:
    return facts.can_swap and facts.causes.isdisjoint(
        {ConflictCause.NO_GPU_READABLE, ConflictCause.INTERNAL_FAULT}
    )


def _kill_applies(facts: ConflictFacts) -> bool:
    return facts.can_kill and facts.causes == {ConflictCause.UNRESERVED}


def _requeue_applies(facts: ConflictFacts) -> bool:
    # A fault of canhazgpu meets all jobs; a limit on requeues would leave them held when it ends.
    return facts.can_requeue and (
        ConflictCause.INTERNAL_FAULT in facts.causes or facts.requeues < facts.max_requeues
    )


def _drain_applies(facts: ConflictFacts) -> bool:
    return ConflictCause.INTERNAL_FAULT not in facts.causes


def _warn_applies(facts: ConflictFacts) -> bool:
    # Two owners never get one GPU: a reserved one stays its holder's, whatever the chain says.
    return facts.can_warn and facts.causes.isdisjoint(
        {ConflictCause.RESERVED, ConflictCause.ABSENT}
    )


def _hold_applies(facts: ConflictFacts) -> bool:
    return facts.can_requeue


def _end_applies(_facts: ConflictFacts) -> bool:
    return True


_STEP_APPLIES: Mapping[StepKind, Callable[[ConflictFacts], bool]] = {
    StepKind.WAIT: _wait_applies,
    StepKind.SWAP: _swap_applies,
    StepKind.KILL: _kill_applies,
    StepKind.REQUEUE: _requeue_applies,
    StepKind.DRAIN: _drain_applies,
    StepKind.WARN: _warn_applies,
    StepKind.HOLD: _hold_applies,
    StepKind.END: _end_applies,
}
