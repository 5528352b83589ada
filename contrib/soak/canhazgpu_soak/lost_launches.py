"""Tell the jobs that Slurm itself has lost from those that hang; pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from canhazgpu_soak.evidence import Evidence
from canhazgpu_soak.records import EPILOG, PROLOG, RUNNING, HookRun

CONTROLLER = "slurmctld"
LONGEST_PROLOG_S = 120.0
"""On a machine whose CPU is starved."""
NEVER = float("-inf")


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
