"""What the scheduler knows of jobs, for those who ask about one."""

from __future__ import annotations

from typing import Protocol

from canhazgpu.frozen_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class JobInfo:
    """A job as the scheduler knows it: user, name and end (seconds since the epoch)."""

    user: str
    name: str
    ends_at: float | None


@dataclass(frozen=True, slots=True)
class JobNow:
    """The present state of a job, in the scheduler's words.

    `address` is the scheduler's name for it, such as ``4711_3``. `starts_at` is when it started or
    may start at the earliest, `ends_at` when it ended or must end; both in seconds since the
    epoch, None if not known. `is_held` says of a waiting job that somebody has to release it.
    """

    job_id: str
    address: str
    user: str
    state: str
    reason: str
    nodes: str
    starts_at: float | None = None
    ends_at: float | None = None
    is_held: bool = False


class JobLookup(Protocol):
    """Looks up the jobs of one scheduler."""

    def job_now(self, job_id: str) -> JobNow | None:
        """Return the job's present state, None if the scheduler does not know the job.

        Raises `SchedulerError` if it does not answer.
        """
        ...

    def resolve_job_id(self, address: str) -> str | None:
        """Return the id of a job that is named otherwise, for example as a task of an array.

        None where the scheduler does not know the job or does not answer.
        """
        ...
