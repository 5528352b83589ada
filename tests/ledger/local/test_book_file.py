"""The book in its file: it says what the journal says, whatever happens to either."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from canhazgpu.errors import NodeStateError
from canhazgpu.gpu.assigned import AssignedGpu
from canhazgpu.ledger.journal_entries import GRANT, PROLOG, QUARANTINE, RELEASE, JournalEntry
from canhazgpu.ledger.local.book import book_file as module
from canhazgpu.ledger.local.book.book_file import BookFile
from canhazgpu.ledger.local.jobs.job_records import JobRecords
from canhazgpu.ledger.values import Claim, JobOwner, NodeView, Reservation

BOOT = "boot 1"


def claim(number: int, boot_id: str | None = BOOT) -> Claim:
    return Claim(f"job:c1:{number}:0", "slurm", "ann", 1000, str(number), boot_id=boot_id)


@pytest.fixture
def told() -> list[str]:
    return []


def open_book(directory: Path, told: list[str], boot_id: str | None = BOOT) -> BookFile:
    return BookFile(directory, "n1", boot_id, JobRecords(directory), told.append)


@pytest.fixture
def book_file(tmp_path: Path, told: list[str]) -> BookFile:
    return open_book(tmp_path, told)


def grant(book_file: BookFile, number: int, *gpus: str) -> None:
    with book_file.open() as transaction:
        transaction.apply_and_journal(
            JournalEntry(GRANT, transaction.now, claim(number).owner, gpus, claim(number))
        )


def held(book_file: BookFile) -> dict[str, str]:
    with book_file.open() as transaction:
        return {gpu: one.claim.owner for gpu, one in transaction.book.reservations.items()}


def test_an_entry_is_in_the_book_and_in_the_journal(book_file: BookFile) -> None:
    grant(book_file, 1, "GPU-a", "GPU-b")
    assert held(book_file) == dict.fromkeys(("GPU-a", "GPU-b"), "job:c1:1:0")
    with book_file.open() as transaction:
        assert [one.entry.kind for one in transaction.pending.entries] == [GRANT]
        transaction.drop_recorded(1)
    with book_file.open() as transaction:
        assert transaction.pending.entries == ()
        transaction.apply_and_journal(JournalEntry(RELEASE, transaction.now, "job:c1:1:0"))
    assert held(book_file) == {}


def test_what_the_store_knows_is_in_the_book_alone(book_file: BookFile) -> None:
    with book_file.open() as transaction:
        transaction.apply(
            JournalEntry(GRANT, transaction.now, claim(1).owner, ("GPU-a",), claim(1))
        )
    with book_file.open() as transaction:
        assert transaction.pending.entries == ()
        assert transaction.book.job_owners == {"job:c1:1:0"}
    assert held(book_file) == {"GPU-a": "job:c1:1:0"}


def test_a_crash_between_journal_and_book_loses_nothing(
    book_file: BookFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    grant(book_file, 1, "GPU-a")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_atomically", fail)
        with pytest.raises(NodeStateError, match="No space left"):
            grant(book_file, 2, "GPU-b")
    assert held(book_file) == {"GPU-a": "job:c1:1:0", "GPU-b": "job:c1:2:0"}


def test_a_block_that_fails_changes_what_it_did_and_no_more(book_file: BookFile) -> None:
    with pytest.raises(LookupError), book_file.open() as transaction:
        transaction.apply_and_journal(
            JournalEntry(GRANT, transaction.now, claim(1).owner, ("GPU-a",), claim(1))
        )
        transaction.apply(
            JournalEntry(GRANT, transaction.now, claim(2).owner, ("GPU-b",), claim(2))
        )
        raise LookupError
    # The journal's entry counts; what only the store would know was not written.
    assert held(book_file) == {"GPU-a": "job:c1:1:0"}


@pytest.mark.parametrize(
    "text",
    ["", "garbage", "[]", "{}", "7", '{"format": 9, "node": "n1"}', '{"format": 1, "node": "n2"}'],
)
def test_a_book_that_cannot_be_read_is_made_anew_from_the_jobs_records(
    book_file: BookFile, tmp_path: Path, told: list[str], text: str
) -> None:
    grant(book_file, 1, "GPU-a")
    with book_file.open() as transaction:
        transaction.drop_recorded(1)
    records = JobRecords(tmp_path)
    for number, gpus in ((2, ("GPU-b", "GPU-c")), (3, ())):
        owner = JobOwner("c1", str(number), 0)
        records.begin(owner, "ann", BOOT)
        assigned = [AssignedGpu(place, gpu, place) for place, gpu in enumerate(gpus)]
        records.complete(owner, assigned, constrained=False, export=["uuid"])
    (tmp_path / "book.json").write_text(text)
    assert held(book_file) == {"GPU-b": "job:c1:2:0", "GPU-c": "job:c1:2:0"}
    assert "event=book-damaged" in told[0]
    with book_file.open() as transaction:
        assert transaction.book.job_owners == {"job:c1:2:0"}


def test_the_records_of_jobs_that_ended_hold_nothing(book_file: BookFile, tmp_path: Path) -> None:
    records = JobRecords(tmp_path)
    owner = JobOwner("c1", "1", 0)
    records.begin(owner, "ann", BOOT)
    records.complete(owner, [AssignedGpu(0, "GPU-a", 0)], constrained=False, export=["uuid"])
    records.end("1")
    assert held(book_file) == {}


def test_after_a_reboot_only_those_are_left_who_outlive_it(
    book_file: BookFile, tmp_path: Path, told: list[str]
) -> None:
    grant(book_file, 1, "GPU-a")
    manual = Claim("manual:a", "manual", "eve", 1002, duration_s=3600)
    with book_file.open() as transaction:
        view = NodeView(
            "n1",
            transaction.now,
            None,
            None,
            {"GPU-b": Reservation("GPU-b", manual, transaction.now, transaction.now + 3600)},
        )
        transaction.refresh(view, module.uptime_s())
    assert held(open_book(tmp_path, told, "boot 2")) == {"GPU-b": "manual:a"}


def test_the_stores_clock_goes_on_while_the_store_is_gone(book_file: BookFile) -> None:
    with book_file.open() as transaction:
        transaction.refresh(NodeView("n1", 5_000_000.0, None, None), module.uptime_s())
    with book_file.open() as transaction:
        assert 0 <= transaction.now - 5_000_000.0 < 60


def test_an_older_view_is_no_news(book_file: BookFile) -> None:
    run = Claim("run:a", "run", "eve", 1002)
    for read_at, gpus in ((100.0, ("GPU-a",)), (90.0, ("GPU-a", "GPU-b"))):
        view = NodeView(
            "n1", read_at, None, None, {gpu: Reservation(gpu, run, 1.0) for gpu in gpus}
        )
        with book_file.open() as transaction:
            transaction.refresh(view, module.uptime_s())
    assert held(book_file) == {"GPU-a": "run:a"}


def test_a_view_takes_nothing_from_the_nodes_own_jobs(book_file: BookFile) -> None:
    grant(book_file, 1, "GPU-a")
    other = Claim("run:a", "run", "eve", 1002)
    view = NodeView("n1", 1e12, None, None, {"GPU-a": Reservation("GPU-a", other, 1.0)})
    with book_file.open() as transaction:
        transaction.refresh(view, module.uptime_s())
    assert held(book_file) == {"GPU-a": "job:c1:1:0"}


def test_a_huge_journal_takes_no_more_notes_but_what_counts(
    book_file: BookFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    grant(book_file, 1, "GPU-a")
    monkeypatch.setattr(module, "MAX_JOURNAL_BYTES_FOR_NOTES", 10)
    with book_file.open() as transaction:
        transaction.apply_and_journal(JournalEntry(PROLOG, transaction.now, reason="a story"))
        transaction.apply_and_journal(
            JournalEntry(QUARANTINE, transaction.now, gpus=("GPU-b",), reason="hot", by="epilog")
        )
    with book_file.open() as transaction:
        assert [one.entry.kind for one in transaction.pending.entries] == [GRANT, QUARANTINE]
        assert transaction.book.quarantines["GPU-b"].by == "epilog"


def test_a_directory_that_cannot_be_written_is_told(tmp_path: Path, told: list[str]) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(NodeStateError, match="cannot keep the node's book"),
        open_book(tmp_path / "file" / "run", told).open(),
    ):
        pytest.fail("nothing can be kept there")


PROCESS = """
import sys
from pathlib import Path
from canhazgpu.ledger.journal_entries import GRANT, RELEASE, JournalEntry
from canhazgpu.ledger.values import Claim
from canhazgpu.ledger.local.book.book_file import BookFile
from canhazgpu.ledger.local.jobs.job_records import JobRecords

place, number = Path(sys.argv[1]), sys.argv[2]
book = BookFile(place, "n1", "boot 1", JobRecords(place), print)
claim = Claim(f"job:c1:{number}:0", "slurm", "ann", 1000, number)
won = 0
for _ in range(50):
    with book.open() as page:
        if "GPU-a" not in page.book.reservations:
            page.apply_and_journal(JournalEntry(GRANT, page.now, claim.owner, ("GPU-a",), claim))
    with book.open() as page:
        if page.book.gpus_of(claim.owner):
            won += 1
            page.apply_and_journal(JournalEntry(RELEASE, page.now, claim.owner))
print(won)
"""


def test_many_processes_at_once_keep_one_book(tmp_path: Path, told: list[str]) -> None:
    running = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(tmp_path), str(number)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]
    outputs = [one.communicate(timeout=120) for one in running]
    assert [err for _, err in outputs] == [""] * 4
    won = sum(int(out) for out, _ in outputs)
    with open_book(tmp_path, told).open() as transaction:
        kinds: list[Any] = [one.entry.kind for one in transaction.pending.entries]
    # Strictly in turn: the GPU never had two, and nothing was lost.
    assert kinds[::2] == [GRANT] * len(kinds[::2])
    assert kinds[1::2] == [RELEASE] * len(kinds[1::2])
    assert won == len(kinds[1::2]) > 0
    assert json.loads((tmp_path / "book.json").read_text())["applied"] == len(kinds)
