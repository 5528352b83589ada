"""Rebuild a book that was lost: ask the scheduler, then begin again with what all sources say."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import NoReturn

from canhazgpu.errors import BookUnknownError, CanhazgpuError, error_text
from canhazgpu.ledger.local.book.book_file import BookFile
from canhazgpu.ledger.local.book.rebuilt_book import SchedulersJob, rebuilt_book
from canhazgpu.ledger.values import NodeView
from canhazgpu.logfmt import log_line

NodeJobs = Callable[[Collection[str]], Sequence[SchedulersJob]]
"""Returns the jobs that the scheduler has on the node, but those with these owners.

Raises one of `CanhazgpuError` where that is not known."""


class BookRebuilding:
    """Rebuilds the book of one node."""

    def __init__(
        self, book_file: BookFile, jobs_here: NodeJobs, log: Callable[[str], None]
    ) -> None:
        self._book_file = book_file
        self._jobs_here = jobs_here
        self._log = log

    def rebuild(self, view: NodeView, uptime: float) -> None:
        """Rebuild the book; `view` was read at this uptime, after all that the journal had.

        Raises `BookUnknownError` where one source is silent, or a job's GPUs are not known: then
        the book stays lost.
        """
        # A record without GPUs is of a prolog that is under way, or of a job that runs unchecked.
        records = [one for one in self._book_file.running_records() if one.gpus]
        try:
            jobs = self._jobs_here({one.owner.token for one in records})
        except CanhazgpuError as exc:
            self._give_up(f"the scheduler does not tell which jobs are here: {error_text(exc)}")
        runs = self._book_file.living_runs()
        rebuilt = rebuilt_book(view, records, jobs, runs, self._book_file.boot_id)
        if rebuilt.undetermined:
            names = ", ".join(
                f"{one.claim.job_id} of {one.claim.user}" for one in rebuilt.undetermined
            )
            self._give_up(
                f"neither the store nor the node's records know the GPUs of job {names}: it has to"
                " end first"
            )
        if self._book_file.rebuild(rebuilt.book, view.read_at - uptime):
            self._log(
                log_line(
                    "book-rebuilt",
                    node=view.node,
                    in_store=len(view.reservations),
                    records=len(records),
                    runs=len(runs),
                    jobs_here=len(jobs),
                    held=sorted(rebuilt.book.reservations),
                )
            )

    def _give_up(self, why: str) -> NoReturn:
        self._book_file.rebuild_obstacle = why
        raise BookUnknownError(f"the node's book is lost, and cannot be made anew: {why}")
