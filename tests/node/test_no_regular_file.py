"""What is no regular file in the place of a state file is not opened, and holds nobody up."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from canhazgpu.deadline import hard_deadline
from canhazgpu.errors import BookUnknownError, DeadlineError, NodeStateError
from canhazgpu.ledger.journal_entries import HEALTH, JournalEntry
from canhazgpu.ledger.local.book.book import Book
from canhazgpu.ledger.local.book.book_file import BookFile
from canhazgpu.ledger.local.book.journal import JOURNAL_FILE, pending_entries
from canhazgpu.ledger.local.book.published_book import PUBLISHED_FILE, read_published
from canhazgpu.ledger.local.jobs.job_records import JobRecords
from canhazgpu.ledger.local.outage import OUTAGE_FILE, StoreOutage
from canhazgpu.ledger.owner import JobOwner
from canhazgpu.node.drain_record import DrainRecord
from canhazgpu.node.state_files import (
    NotRegularFileError,
    file_lock,
    open_regular_file,
    try_file_lock,
)
from canhazgpu.schedulers.slurm.attribution import groups_record
from canhazgpu.schedulers.slurm.attribution.job_group import SlurmdGroups
from canhazgpu.schedulers.slurm.hook import slurmd_gpus_record

LIMIT_S = 20.0
"""After it a reader counts as hanging; none takes a hundredth of it."""
ZERO_DEVICE = os.makedev(1, 5)
"""/dev/zero: whoever reads it all never ends."""


def make_socket(path: Path) -> None:
    with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as server:
        server.bind(path.name)


KINDS: dict[str, Callable[[Path], object]] = {
    "FIFO": os.mkfifo,
    "socket": make_socket,
    "device": lambda path: os.mknod(path, 0o600 | stat.S_IFCHR, ZERO_DEVICE),
    "link to itself": lambda path: path.symlink_to(path.name),
    "link to a device": lambda path: path.symlink_to("/dev/zero"),
    "directory": Path.mkdir,
}


def use_book(place: Path) -> None:
    book = BookFile(place, "n1", "boot", JobRecords(place), lambda line: None)
    with book.open() as transaction:
        transaction.apply_and_journal(JournalEntry(HEALTH, 1.0))
    book.publish()


def use_journal(place: Path) -> None:
    pending_entries(place, "n1")
    use_book(place)


def use_outage(place: Path) -> None:
    outage = StoreOutage(place, 10.0)
    outage.known_reason()
    outage.note("no answer")
    outage.reason_noted_meanwhile()
    outage.clear()


def use_records(place: Path) -> None:
    records = JobRecords(place)
    records.exists("7")
    records.has_readable("7")
    records.find("7")
    records.job_ids_by_run()
    with contextlib.suppress(NodeStateError):
        records.all()
    with contextlib.suppress(NodeStateError):
        records.end("7")
    records.begin(JobOwner("c1", "7", 0), "ann", "boot", [0])


def use_groups(place: Path) -> None:
    groups_record.recorded_groups(place)
    groups_record.record_groups(place, SlurmdGroups({}, ()), Path("/etc/slurm/slurm.conf"))


def use_drain_record(place: Path) -> None:
    record = DrainRecord(place)
    record.may_be_drained()
    record.note_undrained()
    record.note_drained()


def use_published(place: Path) -> None:
    read_published(place, "n1", "boot")
    use_book(place)


def use_lock(name: str) -> Callable[[Path], None]:
    def use(place: Path) -> None:
        descriptor = try_file_lock(place / name)
        assert descriptor is not None
        os.close(descriptor)
        with file_lock(place / name):
            pass

    return use


FILES: dict[str, Callable[[Path], object]] = {
    "book.json": use_book,
    ".book.json.new": use_book,
    ".book.lock": use_book,
    JOURNAL_FILE: use_journal,
    f".{JOURNAL_FILE}.new": use_journal,
    PUBLISHED_FILE: use_published,
    f".{PUBLISHED_FILE}.new": use_published,
    OUTAGE_FILE: use_outage,
    f".{OUTAGE_FILE}.new": use_outage,
    ".store-trial.lock": use_outage,
    "jobs/7.json": use_records,
    "jobs/.new": use_records,
    "jobs/.lock": use_records,
    groups_record.FILE_NAME: use_groups,
    slurmd_gpus_record.FILE_NAME: slurmd_gpus_record.read_answer,
    "not-drained": use_drain_record,
    ".health-check.lock": use_lock(".health-check.lock"),
}


@contextlib.contextmanager
def ends_in_time() -> Iterator[None]:
    try:
        with hard_deadline(LIMIT_S):
            yield
    except DeadlineError:
        pytest.fail("it hangs")


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone makes devices")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FILES)
def test_nobody_waits_for_what_is_in_a_state_files_place(
    tmp_path: Path, name: str, kind: str
) -> None:
    (tmp_path / "jobs").mkdir()
    KINDS[kind](tmp_path / name)

    with ends_in_time(), contextlib.suppress(OSError, NodeStateError):
        FILES[name](tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone makes devices")
@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY | os.O_CREAT, os.O_RDWR | os.O_CREAT])
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_not_opened(tmp_path: Path, kind: str, flags: int) -> None:
    KINDS[kind](tmp_path / "file")

    with ends_in_time(), pytest.raises(NotRegularFileError, match="remove it"):
        open_regular_file(tmp_path / "file", flags)


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone makes devices")
@pytest.mark.parametrize("kind", ["FIFO", "socket", "device"])
@pytest.mark.parametrize("name", [JOURNAL_FILE, PUBLISHED_FILE, "jobs/7.json"])
def test_the_next_change_replaces_it(tmp_path: Path, name: str, kind: str) -> None:
    (tmp_path / "jobs").mkdir()
    KINDS[kind](tmp_path / name)

    with ends_in_time():
        FILES[name](tmp_path)

    assert (tmp_path / name).is_file()


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone makes devices")
@pytest.mark.parametrize("kind", ["FIFO", "socket", "device"])
def test_in_the_books_place_it_is_a_book_that_was_lost(tmp_path: Path, kind: str) -> None:
    KINDS[kind](tmp_path / "book.json")
    book = BookFile(tmp_path, "n1", "boot", JobRecords(tmp_path), lambda line: None)

    with ends_in_time(), pytest.raises(BookUnknownError):
        FILES["book.json"](tmp_path)
    with ends_in_time():
        assert book.rebuild(Book(), 0.0)

    assert (tmp_path / "book.json").is_file()
