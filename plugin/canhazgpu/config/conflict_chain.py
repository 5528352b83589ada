"""Parse conflict chains such as ``wait:20,kill``; pure.

A chain lists the steps for a job whose GPUs cannot be granted. The administrator configures one for
all jobs, or one per partition.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from enum import Enum

from canhazgpu.errors import InputError
from canhazgpu.frozen_dataclass import dataclass


class StepKind(Enum):
    """The kinds of steps."""

    WAIT = "wait"
    """Try again for some seconds."""
    SWAP = "swap"
    """Give the job other GPUs in place of those in use."""
    KILL = "kill"
    """Terminate the processes that use the GPUs."""
    REQUEUE = "requeue"
    """Requeue the job in the scheduler."""
    DRAIN = "drain"
    """Drain the node, and requeue the job."""
    WARN = "warn"
    """Let the job run, and warn its user."""
    HOLD = "hold"
    """Hold the job in the scheduler; part of the end of every chain."""
    END = "end"
    """Tell the user and end the job, if it cannot be requeued."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a chain; only a wait has `seconds`."""

    kind: StepKind
    seconds: float = 0.0

    def __str__(self) -> str:
        waits = self.kind is StepKind.WAIT
        return f"{self.kind.value}:{self.seconds:g}" if waits else self.kind.value


Chain = tuple[Step, ...]

CONFIGURABLE = ("wait", "swap", "kill", "requeue", "drain", "warn")
CHAIN_END: Chain = (Step(StepKind.REQUEUE), Step(StepKind.HOLD), Step(StepKind.END))
"""Appended to every chain, so that no job runs on a GPU in use after all steps have failed."""

ACCEPTED = (
    "a chain of wait:<seconds>, swap, kill, requeue, drain and warn, each once and wait as often as"
    ' you like, as in "wait:20,kill,requeue"'
)
ACCEPTED_BY_PARTITION = f"a list of PARTITION=CHAIN, each partition once, each with {ACCEPTED}"
MAX_WAIT_S = 3600.0
_WAIT = re.compile(r"wait:([0-9]{1,5}(?:\.[0-9]{1,3})?)")
_PARTITION = re.compile(r"[^\s=,:]{1,200}")


def parse_chain(text: str) -> Chain:
    """Return the steps of a chain; raises `InputError`, which says what is accepted."""
    steps = tuple(_parse_step(word.strip(), text) for word in text.split(","))
    once = [step.kind for step in steps if step.kind is not StepKind.WAIT]
    for kind in once:
        if once.count(kind) > 1:
            raise InputError(f"{_quoted(text)} has {kind.value} twice; accepted: {ACCEPTED}")
    return steps


def _parse_step(word: str, text: str) -> Step:
    if match := _WAIT.fullmatch(word):
        seconds = float(match[1])
        if 0 < seconds <= MAX_WAIT_S:
            return Step(StepKind.WAIT, seconds)
        accepted = f"wait:<seconds>, above 0 and at most {MAX_WAIT_S:g}"
        raise InputError(f"{word} in {_quoted(text)} is no time to wait; accepted: {accepted}")
    if word == "wait":
        raise InputError(f"{_quoted(text)} does not say how long to wait; accepted: as in wait:20")
    if word not in CONFIGURABLE:
        raise InputError(f"{_quoted(word)} in {_quoted(text)} is no step; accepted: {ACCEPTED}")
    return Step(StepKind(word))


def parse_chains_by_partition(words: Iterable[str]) -> dict[str, Chain]:
    """Return the chains by partition, from words ``PARTITION=CHAIN``.

    A word without ``=`` is a further step of the chain before it: in environment variables commas
    separate the words of a list, and so they separate the steps of a chain. Raises `InputError`.
    """
    texts: dict[str, str] = {}
    latest = ""
    for word in words:
        name, equals, chain = word.strip().partition("=")
        if not equals and latest:
            texts[latest] += f",{name}"
            continue
        if not equals or not _PARTITION.fullmatch(name) or name in texts:
            raise InputError(f"{_quoted(word)} is not accepted; accepted: {ACCEPTED_BY_PARTITION}")
        latest = name
        texts[name] = chain
    return {name: parse_chain(text) for name, text in texts.items()}


def chain_for_partition(on_conflict: str, by_partition: Iterable[str], partition: str) -> Chain:
    """Return the chain for jobs of this partition."""
    chains: Mapping[str, Chain] = parse_chains_by_partition(by_partition)
    return chains.get(partition) or parse_chain(on_conflict)


def longest_wait_s(chains: Iterable[Chain], kill_grace_s: float) -> float:
    """Return the longest waiting time of any of the chains, with the grace period of a kill."""
    return max(
        (
            sum(step.seconds + kill_grace_s * (step.kind is StepKind.KILL) for step in chain)
            for chain in chains
        ),
        default=0.0,
    )


def swap_error(chains: Iterable[Chain], *, constrained: bool) -> str:
    """Return why these chains cannot be installed on a node; "" if they can."""
    if constrained and any(step.kind is StepKind.SWAP for chain in chains for step in chain):
        return (
            "swap cannot work where cgroup.conf has ConstrainDevices=yes: the job could not open"
            " the GPUs it is given instead; take swap out of slurm.on_conflict and"
            " slurm.on_conflict_by_partition"
        )
    return ""


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")
