"""Which faults come when: decided from the seed, before anything starts; pure."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass

STORE = "store"
PROCESSES = ("agent", "scanner", "watcher", "handler", "helper", "hook", "command", "waiter")
DISK_FULL, INODES_GONE = "disk full", "inodes gone"
AGENT_CLOCK, STORE_CLOCK = "agent's clock stepped", "store's clock stepped"
CONTROLLER, SLURMD = "slurmctld restarted", "slurmd restarted"
REBOOTED, HOGS = "node rebooted", "CPU starved"
TAMPERED = "ledger tampered"
"""Nobody is promised anything then: it comes only where it is asked for."""
WEIGHTS = {
    **{f"{target} {act}": 4 for target in PROCESSES for act in ("killed", "stopped")},
    "store killed": 3,
    "store stopped": 2,
    "store flushed": 2,
    "store out of memory": 2,
    "store made a replica": 2,
    "store put back": 2,
    "store failed over": 3,
    DISK_FULL: 3,
    INODES_GONE: 3,
    AGENT_CLOCK: 3,
    STORE_CLOCK: 2,
    CONTROLLER: 2,
    SLURMD: 2,
    REBOOTED: 2,
    HOGS: 1,
    TAMPERED: 1,
}
"""Each kind of fault, and how often it comes beside the others."""
LONGEST_S = {"agent": 8.0, STORE: 30.0, HOGS: 120.0, AGENT_CLOCK: 30.0, STORE_CLOCK: 30.0}
DEFAULT_LONGEST_S = 10.0
STARVED_PART = 0.15
"""The CPU is starved for at most this part of a soak at once."""
MEAN_GAP_S = 3.0
QUIET_S = 5.0
"""No fault comes so soon after the beginning."""
STARVED_S, STARVED_EVERY_S = 150.0, 300.0
"""How long and how often the CPU of a starved soak is taken, whatever else comes."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault to come: when, on which node, and for how long, in seconds.

    `draw`, from 0 to 1, chooses among the processes that there are then, or the size of a step.
    """

    at_s: float
    kind: str
    node: str
    lasts_s: float
    draw: float

    @property
    def is_of_store(self) -> bool:
        """Whether it strikes the store, which has one fault at a time."""
        return self.kind.startswith(STORE)


def plan_faults(
    seed: str,
    length_s: float,
    nodes: tuple[str, ...],
    kinds: Iterable[str],
    *,
    starved: bool = False,
) -> tuple[Fault, ...]:
    """Return the faults in order; one of the store comes only when the one before it is over."""
    rng = random.Random(f"{seed}/faults")  # noqa: S311 - it has to be repeatable
    weights = {kind: weight for kind, weight in WEIGHTS.items() if kind in set(kinds)}
    faults: list[Fault] = []
    at_s, store_free_s = QUIET_S, 0.0
    while (at_s := at_s + rng.expovariate(1 / MEAN_GAP_S)) < length_s:
        kind = rng.choices(list(weights), list(weights.values()))[0]
        lasts_s = _lasts_s(kind, rng, length_s)
        fault = Fault(at_s, kind, rng.choice(nodes), lasts_s, rng.random())
        if fault.is_of_store:
            if at_s < store_free_s:
                continue
            store_free_s = at_s + fault.lasts_s + QUIET_S
        faults.append(fault)
    if starved:
        faults += _starvation(length_s, nodes[0])
    return tuple(sorted(faults, key=lambda one: one.at_s))


def _starvation(length_s: float, node: str) -> list[Fault]:
    begins = range(int(QUIET_S) + 1, int(length_s), int(STARVED_EVERY_S))
    return [Fault(at_s, HOGS, node, min(STARVED_S, length_s / 2), 0.0) for at_s in begins]


def _lasts_s(kind: str, rng: random.Random, length_s: float) -> float:
    if kind == "store stopped":
        return LONGEST_S[STORE]
    longest_s = LONGEST_S.get(kind, LONGEST_S.get(kind.partition(" ")[0], DEFAULT_LONGEST_S))
    if kind == HOGS:
        return rng.uniform(longest_s / 4, longest_s) * min(1.0, STARVED_PART * length_s / longest_s)
    return rng.uniform(0.2, longest_s)
