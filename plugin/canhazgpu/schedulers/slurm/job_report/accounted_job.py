"""A job as Slurm's accounting has it, and what is to be done about a report of it; pure."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.schedulers.slurm.job_report.comment import (
    MAX_NODES,
    is_ours,
    merged_comment,
    tells,
)

FIELDS = ("JobIDRaw", "JobID", "Start", "End", "NNodes", "AdminComment")
"""What sacct is asked for; the last one is the only text that is not Slurm's own.

NodeList is none of them: of a job of two nodes 22.05 may show one there (seen).
"""
TIMES = {"SLURM_TIME_FORMAT": "%s"}
"""Has sacct give times in seconds since the epoch."""
MAX_AGE_S = 86400.0
"""How long a report waits for the accounting."""
CLOCKS_S = 5.0
"""By how much the clocks of a node and of the controller may differ."""


@dataclass(frozen=True, slots=True)
class AccountedJob:
    """The latest attempt of a job; times in seconds since the epoch, None where not known.

    `address` names this job alone: an array, and a heterogeneous job, have one of their jobs' id,
    and sacctmgr changes all of them for that id (seen).
    """

    address: str
    started_at: float | None
    ended_at: float | None
    node_count: int
    comment: str


@dataclass(frozen=True, slots=True)
class JobReport:
    """What one node has to tell of an attempt that ended there at `ended_at` (epoch seconds)."""

    job_id: str
    ended_at: float
    line: str


class Step(Enum):
    """What is to be done about a report."""

    WAIT = "wait"
    DROP = "drop"
    WRITE = "write"
    WRITE_AND_LOOK = "write and look"
    """Another node may write at the same time: it is written again until it is found there."""


def parse_jobs(text: str, delimiter: str) -> dict[str, AccountedJob]:
    """Return the jobs by raw id. A comment cannot forge a job: nobody knows the delimiter."""
    found = {}
    for line in text.splitlines():
        fields = line.split(delimiter)
        if len(fields) != len(FIELDS) or not fields[0].isdecimal():
            continue
        raw, address, start, end, count, comment = fields
        node_count = int(count[:9]) if count.isdecimal() else 1
        times = _time(start), _time(end)
        found[raw] = AccountedJob(address, *times, node_count, comment)
    return found


def decide(
    report: JobReport, jobs: Mapping[str, AccountedJob], node: str, now: float
) -> tuple[Step, str]:
    """Return what is to be done, and the comment to be written."""
    job = jobs.get(report.job_id)
    is_old = now - report.ended_at > MAX_AGE_S
    if is_old or (job is not None and not _is_to_be_told(report, job, node)):
        return Step.DROP, ""
    if job is None or job.ended_at is None:
        return Step.WAIT, ""
    comment = merged_comment(job.comment, node, report.line, job.node_count)
    shared = 1 < job.node_count <= MAX_NODES
    return (Step.WRITE_AND_LOOK if shared else Step.WRITE), comment


def _is_to_be_told(report: JobReport, job: AccountedJob, node: str) -> bool:
    """Tell whether the report is of this attempt, and missing in a comment that is ours."""
    if job.started_at is not None and job.started_at > report.ended_at + CLOCKS_S:
        return False  # a later attempt
    if not is_ours(job.comment) or tells(job.comment, node, report.line):
        return False
    return job.node_count <= MAX_NODES or not job.comment.strip()


def _time(text: str) -> float | None:
    return float(text) if text.isascii() and text.isdecimal() and len(text) < 12 else None
