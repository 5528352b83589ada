"""Make a book anew that was lost: from the store, the jobs' records and the scheduler; pure.

The store has what people hold, and what jobs were granted while it answered. The node's records
name the GPUs of the jobs whose prologs ran here, and of people's runs. The scheduler knows which
jobs are here, and which GPUs they have where it picks their devices. A job of which none of them
names the GPUs leaves the book unknown until it ends.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING

from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.ledger.local.book.book import Book, is_job_owner
from canhazgpu.ledger.local.book.outlasting_records import NOTHING_OUTLASTS, OutlastingRecords
from canhazgpu.ledger.local.jobs.job_record import JobRecord
from canhazgpu.ledger.values import Claim, NodeView, Reservation

if TYPE_CHECKING:
    from canhazgpu.ledger.local.runs.run_record import RunRecord


@dataclass(frozen=True, slots=True)
class SchedulersJob:
    """A job that the scheduler has on the node, and its GPUs (UUIDs), None where it cannot tell."""

    claim: Claim
    gpus: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class RebuiltBook:
    """The book, and the jobs of which nobody can tell which GPUs they have."""

    book: Book
    undetermined: tuple[SchedulersJob, ...] = ()


def book_from_records(
    records: Iterable[JobRecord],
    runs: Iterable[RunRecord] = (),
    outlasting: OutlastingRecords = NOTHING_OUTLASTS,
) -> Book:
    """Return a book of what these attempts and runs have by the node's own records.

    `outlasting` is of before the boot; an attempt's record counts more.
    """
    book = Book(outlasting.reservations, quarantines=outlasting.quarantines)
    return _with_runs(_with_records(book, records), runs)


def rebuilt_book(
    view: NodeView,
    records: Collection[JobRecord],
    jobs: Iterable[SchedulersJob],
    runs: Iterable[RunRecord] = (),
    boot_id: str | None = None,
) -> RebuiltBook:
    """Return the book of a node; of two sources that differ the one nearer to the job counts.

    `records` are those of running attempts, and `runs` those of runs whose command lives. What the
    store has of an earlier boot than `boot_id` is nobody's, and in nobody's way.
    """
    every = [one.claim.owner for one in view.all_reservations()]
    book = Book(
        view.reservations,
        view.released_at,
        view.quarantines,
        frozenset(filter(is_job_owner, every)),
        view.read_at,
    ).without_earlier_boots(boot_id)
    book = _with_runs(_with_records(book, records), runs)
    here = {job.claim.owner: job for job in jobs}
    undetermined = []
    for owner, job in here.items():
        if book.gpus_of(owner):
            continue
        if job.gpus is None:
            undetermined.append(job)
            continue
        free = [gpu for gpu in job.gpus if _may_have(book.reservations.get(gpu), here)]
        book = book.with_grant(job.claim, free, 0.0) if free else book
    return RebuiltBook(book, tuple(undetermined))


def _may_have(held: Reservation | None, here: Collection[str]) -> bool:
    """Return whether a job here may have the GPU: its holder is no person and no other job here."""
    holders = held.holders if held else ()
    return all(is_job_owner(one.claim.owner) and one.claim.owner not in here for one in holders)


def _with_records(book: Book, records: Iterable[JobRecord]) -> Book:
    for claim, gpus in _recorded_claims(records):
        book = book.with_grant(claim, gpus, 0.0)
    return book


def _with_runs(book: Book, runs: Iterable[RunRecord]) -> Book:
    """Return the book with these runs as the node's own; they take no GPU from anybody."""
    for run in runs:
        held = book.gpus_of(run.owner)
        free = [gpu for gpu in run.gpus if gpu not in book.reservations]
        if held or free:
            book = book.with_grant(run.claim, [*held, *free], 0.0, is_own=True)
    return book


def _recorded_claims(records: Iterable[JobRecord]) -> Iterator[tuple[Claim, list[str]]]:
    for record in records:
        claim = Claim(
            record.owner.token,
            "slurm",
            record.user,
            job_id=record.owner.job_id,
            boot_id=record.boot_id,
            share=record.share,
        )
        if record.gpus:
            yield claim, [gpu.uuid for gpu in record.gpus]
