"""Which faults come when: decided from the seed, before anything starts. Pure."""

from __future__ import annotations

import random
from dataclasses import dataclass

STORE = "store"
PROCESSES = ("agent", "scanner", "watcher", "handler", "helper", "hook", "command")
KINDS = {
    **{f"{target} {act}": 4 for target in PROCESSES for act in ("killed", "stopped")},
    "store killed": 3,
    "store stopped": 2,
    "store flushed": 2,
    "store put back": 2,
    "slurmctld restarted": 2,
    "slurmd restarted": 2,
    "hogs": 1,
}
"""Each kind of fault, and its weight."""
LONGEST_S = {"agent": 8.0, "store": 30.0, "hogs": 20.0}
DEFAULT_LONGEST_S = 10.0
MEAN_GAP_S = 3.0
QUIET_S = 5.0
"""No fault comes so soon after the beginning."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault to come: when, on which node, and for how long, in seconds.

    `draw`, from 0 to 1, chooses among the processes that there are then.
    """

    at_s: float
    kind: str
    node: str
    lasts_s: float
    draw: float


def plan_faults(seed: str, length_s: float, nodes: tuple[str, ...]) -> tuple[Fault, ...]:
    """Return the faults in order; one of the store comes only when the one before it is over."""
    rng = random.Random(f"{seed}/faults")  # noqa: S311 - it has to be repeatable
    faults: list[Fault] = []
    at_s, store_free_s = QUIET_S, 0.0
    while (at_s := at_s + rng.expovariate(1 / MEAN_GAP_S)) < length_s:
        kind = rng.choices(list(KINDS), list(KINDS.values()))[0]
        fault = Fault(at_s, kind, rng.choice(nodes), _lasts_s(kind, rng), rng.random())
        if kind.startswith(STORE):
            if at_s < store_free_s:
                continue
            store_free_s = at_s + fault.lasts_s + QUIET_S
        faults.append(fault)
    return tuple(faults)


def _lasts_s(kind: str, rng: random.Random) -> float:
    if kind == "store stopped":
        return LONGEST_S[STORE]
    longest_s = LONGEST_S.get(kind.partition(" ")[0], DEFAULT_LONGEST_S)
    return rng.uniform(0.2, longest_s)
