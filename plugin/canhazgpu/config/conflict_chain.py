"""What is tried, step by step, for a job whose GPUs cannot be granted: ``wait:20,kill``; pure.

The chain is the administrator's, for all jobs or for those of one partition.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from canhazgpu.errors import InputError


class StepKind(Enum):
    """What a step does."""

    WAIT = "wait"
    """Look again for some seconds."""
    SWAP = "swap"
    """Give the job other GPUs, that are clean, in place of those in use."""
    KILL = "kill"
    """End the processes that are in the way."""
    REQUEUE = "requeue"
    """Let the job wait in the scheduler's queue again."""
    DRAIN = "drain"
    """Take the node out of service, and let the job wait again."""
    WARN = "warn"
    """Let the job run, and say so."""
    HOLD = "hold"
    """Let the job wait until somebody releases it; the end of every chain."""
    END = "end"
    """Tell the user and end the job; for those that cannot wait in the queue."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a chain; `seconds` counts for a wait alone."""

    kind: StepKind
    seconds: float = 0.0

    def __str__(self) -> str:
        waits = self.kind is StepKind.WAIT
        return f"{self.kind.value}:{self.seconds:g}" if waits else self.kind.value


Chain = tuple[Step, ...]

CONFIGURABLE = ("wait", "swap", "kill", "requeue", "drain", "warn")
CHAIN_END: Chain = (Step(StepKind.REQUEUE), Step(StepKind.HOLD), Step(StepKind.END))
"""What every chain ends with, so that no job runs on a GPU in use because nothing was left."""

ACCEPTED = (
    "a chain of wait:<seconds>, swap, kill, requeue, drain and warn, each once and wait as often as"
    ' you like, as in "wait:20,kill,requeue"'
)
ACCEPTED_BY_PARTITION = f"a list of PARTITION=CHAIN, each partition once, each with {ACCEPTED}"
MAX_WAIT_S = 3600.0
_WAIT = re.compile(r"wait:([0-9]{1,5}(?:\.[0-9]{1,3})?)")
_PARTITION = re.compile(r"[^\s=,:]{1,200}")


def parse_chain(text: str) -> Chain:
    """Return the steps of a chain; raises `InputError` saying what is accepted."""
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

    A word without ``=`` goes on with the chain before it: in environment variables, where commas
    part the words of a list, chains come cut into their steps. Raises `InputError`.
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
    """Return the chain for a job of this partition."""
    chains: Mapping[str, Chain] = parse_chains_by_partition(by_partition)
    return chains.get(partition) or parse_chain(on_conflict)


def longest_wait_s(chains: Iterable[Chain], kill_grace_s: float) -> float:
    """Return how long the waits of a chain and the grace of its kill take, of the longest one."""
    return max(
        (
            sum(step.seconds + kill_grace_s * (step.kind is StepKind.KILL) for step in chain)
            for chain in chains
        ),
        default=0.0,
    )


def swap_error(chains: Iterable[Chain], *, constrained: bool) -> str:
    """Say why these chains cannot be installed on a node; empty where they can."""
    if constrained and any(step.kind is StepKind.SWAP for chain in chains for step in chain):
        return (
            "swap cannot work where cgroup.conf has ConstrainDevices=yes: the job could not open"
            " the GPUs it is given instead; take swap out of slurm.on_conflict and"
            " slurm.on_conflict_by_partition"
        )
    return ""


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")
