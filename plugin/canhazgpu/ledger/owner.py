"""The owners of reservations, as tokens: a scheduler's job, a run, or a person for a time; pure."""

from __future__ import annotations

from canhazgpu.frozen_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class JobOwner:
    """One attempt of a scheduler's job.

    `attempt` is Slurm's restart count. A requeued job keeps its id: with the attempt in the
    token, a late epilog of the first attempt does not release the GPUs of the second.
    """

    cluster: str
    job_id: str
    attempt: int

    @property
    def token(self) -> str:
        """The owner as the ledger knows it, ``job:CLUSTER:ID:ATTEMPT``."""
        return f"{self._job}{self.attempt}"

    @property
    def _job(self) -> str:
        return f"job:{self.cluster}:{self.job_id}:"

    def covers(self, token: str) -> bool:
        """Return whether the token is this job's, of this attempt or an earlier one."""
        attempt = token.removeprefix(self._job)
        return attempt != token and attempt.isdecimal() and int(attempt) <= self.attempt


def job_cluster(token: str) -> str:
    """Return the cluster in a job's token, "" for any other owner."""
    kind, _, rest = token.partition(":")
    return rest.partition(":")[0] if kind == "job" and rest.count(":") > 1 else ""


RUN = "run"
MANUAL = "manual"
"""Values of the TYPE column: a running command's reservation, and a person's timed reservation."""


def new_owner_token(type_: str) -> str:
    """Return a new unique token, ``run:…`` or ``manual:…``.

    It does not contain the user's name: a late release of one run must not release the same
    user's next run.
    """
    from secrets import token_hex  # noqa: PLC0415 - slow to import, rarely needed

    return f"{type_}:{token_hex(8)}"
