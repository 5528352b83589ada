"""The members of the indexes that say where to look for a job or a user; pure.

A hint says no more: whoever follows it reads the node's own keys. So a superfluous one costs one
read, and nobody can change by hints what is told of a node.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeGuard

from canhazgpu.ledger.owner import MANUAL, RUN
from canhazgpu.ledger.store.keys import Hint, jobs_index_key, owner_number, user_index_key
from canhazgpu.ledger.usage import DAY_S

if TYPE_CHECKING:
    from canhazgpu.ledger.journal_entries import JournalEntry
    from canhazgpu.ledger.values import Claim, Waiter

UNKNOWN_UID = -1
"""Stands for holders of whom only the name is known."""
MAX_JOB_DIGITS = 19


class Hints:
    """The hints of one node for one day (UTC), each once; `time` is in seconds since the epoch."""

    def __init__(self, prefix: str, node: str, time: float) -> None:
        self._prefix = prefix
        self._node = node
        self._day = int(time // DAY_S)
        self._found: dict[Hint, None] = {}

    def __iter__(self) -> Iterator[Hint]:
        return iter(self._found)

    def add_job(self, job_id: str | None) -> None:
        """Say that the node tells of this job on the day; what is no job's number adds nothing."""
        if is_job_id(job_id):
            self._add_number(int(job_id))

    def add_owner(self, owner: str) -> None:
        """Say the same of the owner: a job, a run or a reservation by hand."""
        kind, _, rest = owner.partition(":")
        if kind == "job" and rest.count(":") > 1:
            self.add_job(rest.split(":")[1])
        elif kind in (RUN, MANUAL):
            self._add_number(owner_number(owner, self._day))

    def _add_number(self, number: int) -> None:
        self._found[jobs_index_key(number, self._prefix), f"{number} {self._node} {self._day}"] = (
            None
        )

    def add_checked_jobs(self, facts: Mapping[str, Any]) -> None:
        """Say the same of the jobs of which a health check tells."""
        jobs = facts.get("jobs")
        for one in jobs if isinstance(jobs, list) else ():
            self.add_job(one.get("job_id") if isinstance(one, dict) else None)

    def add_holder(self, holder: Claim | Waiter) -> None:
        """Say where the job and the user of the claim or of the waiter are."""
        self.add_owner(holder.owner)
        self.add_user(holder.uid)

    def add_entry(self, entry: JournalEntry) -> None:
        """Say the same of all of whom an entry of the journal tells."""
        self.add_owner(entry.owner)
        if entry.claim is not None:
            self.add_holder(entry.claim)
        self.add_checked_jobs(entry.facts)

    def add_user(self, uid: int | None) -> None:
        """Say that the user holds, uses or waits for GPUs of the node on the day."""
        key = user_index_key(UNKNOWN_UID if uid is None else uid, self._day, self._prefix)
        self._found[key, self._node] = None


def is_job_id(text: str | None) -> TypeGuard[str]:
    """Tell whether the text is the number of a job."""
    is_number = isinstance(text, str) and text.isascii() and text.isdecimal()
    return is_number and len(text or "") <= MAX_JOB_DIGITS
