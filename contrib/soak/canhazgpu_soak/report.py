"""The table at the end; pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from canhazgpu_soak.evidence import Evidence, Finding
from canhazgpu_soak.judge import CONTRADICTION, HUNG_COMMAND, ON_A_ROGUE, TRACEBACK, TWO_HOLDERS
from canhazgpu_soak.late_releases import LATE, outlived
from canhazgpu_soak.records import JOB, RESERVE, RUN

NOT_FREE = "GPUs neither free nor held at the end"
DRAINED = "nodes drained"
HUNG_JOB = "jobs that hung"
LOG_TRACEBACK = "tracebacks of hooks and agents"
AGENT_ENDED = "agents that ended by themselves"
VIOLATIONS = (
    TWO_HOLDERS, ON_A_ROGUE, LATE, NOT_FREE, DRAINED, HUNG_JOB, HUNG_COMMAND, TRACEBACK,
    LOG_TRACEBACK, CONTRADICTION, AGENT_ENDED,
)  # fmt: skip
WIDTH = 60
MAX_SHOWN = 10
"""Violations of a kind that are named."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that the table shows: what was seen, and what was found wrong."""

    seed: str
    length_s: float
    evidence: Evidence
    findings: Sequence[Finding]
    faults: Mapping[str, int] = field(default_factory=dict)
    jobs: Mapping[str, int] = field(default_factory=dict)
    commands: Mapping[str, int] = field(default_factory=dict)
    unanswered: Mapping[str, int] = field(default_factory=dict)
    drained_by_slurm: int = 0
    lost_by_slurm: int = 0
    agents_kept_from_starting: int = 0
    missed: Mapping[str, int] = field(default_factory=dict)
    """Faults that found nothing to strike."""
    rogues: Mapping[str, int] = field(default_factory=dict)
    has_hooks: bool = True

    @property
    def holds(self) -> bool:
        """Whether all promises were kept, and there was something that could break them."""
        return not self.findings and bool(self.evidence.holders)


def table(outcome: Outcome) -> str:
    """Return the table: faults, load, and each count of violations."""
    counts = Counter(one.kind for one in outcome.findings)
    rows = [
        _heading(f"seed {outcome.seed}, {outcome.length_s:g} s: faults that struck"),
        *map(_row, outcome.faults.items()),
        _row(("all of them", sum(outcome.faults.values()))),
        _row(("planned, but nothing was there to strike", sum(outcome.missed.values()))),
        _heading("load"),
        *map(_row, _load(outcome).items()),
        _heading("must be 0" if outcome.has_hooks else "with empty hooks, by Slurm alone"),
        *(_row((kind, counts[kind])) for kind in VIOLATIONS),
    ]
    return "\n".join([*rows, "", _verdict(outcome)])


def _load(outcome: Outcome) -> dict[str, object]:
    held = Counter(one.kind for one in outcome.evidence.holders)
    unchecked = sum(not one.is_checked for one in outcome.evidence.holders)
    return {
        **{f"jobs: {name}": count for name, count in sorted(outcome.jobs.items())},
        **{f"ended with: {name}": count for name, count in sorted(outcome.commands.items())},
        "tasks of jobs that had GPUs": held[JOB],
        "runs that had GPUs": held[RUN],
        "reservations that had GPUs": held[RESERVE],
        **{f"without reservation: {name}": n for name, n in sorted(outcome.rogues.items())},
        "tasks that nobody had checked": unchecked,
        "longest wait for a run's GPUs": f"{_longest_wait_s(outcome.evidence):.1f} s",
        "longest reservation after its owner's end": f"{_longest_after_s(outcome.evidence):.1f} s",
        "answers of status": len(outcome.evidence.answers),
        **{f"not answered: {name}": count for name, count in outcome.unanswered.items()},
        "nodes drained by Slurm itself": outcome.drained_by_slurm,
        "jobs whose launch a restarted daemon of Slurm's lost": outcome.lost_by_slurm,
        "starts of agents that a full disk or a kill ended": outcome.agents_kept_from_starting,
    }


def _longest_wait_s(evidence: Evidence) -> float:
    asked = {request.key: request.began for request in evidence.requests}
    waits = (one.began - asked[one.key] for one in evidence.holders if one.key in asked)
    return max(waits, default=0.0)


def _longest_after_s(evidence: Evidence) -> float:
    return max((late_s for _, _, late_s in outlived(evidence)), default=0.0)


def _verdict(outcome: Outcome) -> str:
    if not outcome.has_hooks and not outcome.findings:
        return "Slurm drained no node, and no job hung."
    if outcome.holds:
        return "All promises were kept."
    if not outcome.findings:
        return "FAILED: no task had a GPU, so nothing was tried."
    lines = [f"FAILED: {len(outcome.findings)} violations"]
    for kind in VIOLATIONS:
        found = [one for one in outcome.findings if one.kind == kind]
        lines += [f"  {one.at:.2f} {kind}: {one.text}" for one in found[:MAX_SHOWN]]
        if len(found) > MAX_SHOWN:
            lines.append(f"  and {len(found) - MAX_SHOWN} more of this kind")
    return "\n".join(lines)


def _heading(text: str) -> str:
    return f"\n{text}"


def _row(row: tuple[str, object]) -> str:
    name, value = row
    return f"  {name:{WIDTH}} {value!s:>8}"
