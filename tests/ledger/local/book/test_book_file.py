"""The book in its file: it says what the journal says, whatever happens to either."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from canhazgpu.errors import BookUnknownError, NodeStateError
from canhazgpu.gpu.assigned import AssignedGpu
from canhazgpu.ledger.journal_entries import GRANT, PROLOG, QUARANTINE, RELEASE, JournalEntry
from canhazgpu.ledger.local.book import book_file as module
from canhazgpu.ledger.local.book import book_transaction
from canhazgpu.ledger.local.book.book import Book
from canhazgpu.ledger.local.book.book_file import BookFile
from canhazgpu.ledger.local.book.published_book import read_published
from canhazgpu.ledger.local.book.served_boot import ServedBoot
from canhazgpu.ledger.local.jobs.job_records import JobRecords
from canhazgpu.ledger.owner import JobOwner
from canhazgpu.ledger.values import Claim, NodeView, Reservation

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
        assert transaction.book.own_owners == {"job:c1:1:0"}
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


def record(directory: Path, number: int, *gpus: str) -> None:
    records = JobRecords(directory)
    owner = JobOwner("c1", str(number), 0)
    records.begin(owner, "ann", BOOT)
    assigned = [AssignedGpu(place, gpu, place) for place, gpu in enumerate(gpus)]
    records.complete(owner, assigned, constrained=False, export=["uuid"])


def test_a_book_that_was_never_there_is_made_from_the_jobs_records(
    book_file: BookFile, tmp_path: Path
) -> None:
    record(tmp_path, 2, "GPU-b", "GPU-c")
    record(tmp_path, 3)
    assert held(book_file) == {"GPU-b": "job:c1:2:0", "GPU-c": "job:c1:2:0"}
    with book_file.open() as transaction:
        assert transaction.book.own_owners == {"job:c1:2:0"}


@pytest.mark.parametrize(
    "text",
    ["", "garbage", "[]", "{}", "7", '{"format": "x"}', '{"format": 1, "node": "n2"}'],
)
def test_a_book_that_cannot_be_read_is_unknown_until_it_is_rebuilt(
    book_file: BookFile, tmp_path: Path, text: str
) -> None:
    grant(book_file, 1, "GPU-a")
    record(tmp_path, 2, "GPU-b")
    (tmp_path / "book.json").write_text(text)
    book_file.rebuild_obstacle = "the store is silent"
    with pytest.raises(BookUnknownError, match=r"not known who holds .* the store is silent"):
        held(book_file)
    assert (tmp_path / "book.json").read_text() == text
    # What the store had not heard is still there for it.
    assert [one.entry.kind for one in book_file.lost_book_journal().entries] == [GRANT]
    assert book_file.rebuild(Book().with_grant(claim(4), ["GPU-d"], 1.0), 0.0)
    assert held(book_file) == {"GPU-d": "job:c1:4:0"}
    with book_file.open() as transaction:
        assert transaction.pending.entries == ()


def test_a_book_is_rebuilt_once(book_file: BookFile) -> None:
    grant(book_file, 1, "GPU-a")
    assert not book_file.rebuild(Book(), 0.0)
    assert held(book_file) == {"GPU-a": "job:c1:1:0"}


def test_a_rebuilt_book_has_a_journal_of_its_own(book_file: BookFile, tmp_path: Path) -> None:
    """The store may have answered to numbers that the lost book had given."""
    grant(book_file, 1, "GPU-a")
    before = book_file.lost_book_journal().token
    (tmp_path / "book.json").write_text("")
    book_file.rebuild(Book(), 0.0)
    grant(book_file, 1, "GPU-a")
    with book_file.open() as transaction:
        assert transaction.pending.token != before
        assert transaction.pending.last == 1


def test_a_book_of_a_newer_form_is_never_remade(book_file: BookFile, tmp_path: Path) -> None:
    grant(book_file, 1, "GPU-a")
    text = '{"format": 2, "node": "n1"}'
    (tmp_path / "book.json").write_text(text)
    with pytest.raises(NodeStateError, match="is of form 2, of a later release") as found:
        held(book_file)
    assert not isinstance(found.value, BookUnknownError)
    with pytest.raises(NodeStateError, match="is of form 2, of a later release"):
        book_file.rebuild(Book(), 0.0)
    assert (tmp_path / "book.json").read_text() == text


def served_book(directory: Path, told: list[str], boot_id: str | None = BOOT) -> BookFile:
    state_dir = directory / "run"
    served = ServedBoot(directory / "lib", state_dir, boot_id)
    records = JobRecords(state_dir)
    return BookFile(state_dir, "n1", boot_id, records, told.append, served=served)


@pytest.mark.parametrize("loses", ["the book", "all"])
def test_a_book_that_is_missing_in_a_boot_that_was_served_is_unknown(
    tmp_path: Path, told: list[str], loses: str
) -> None:
    assert held(served_book(tmp_path, told)) == {}
    assert (tmp_path / "run" / "book.json").exists()
    if loses == "all":
        shutil.rmtree(tmp_path / "run")
    else:
        (tmp_path / "run" / "book.json").unlink()
    for _ in range(2):
        with pytest.raises(BookUnknownError, match="is missing, and was there in this boot"):
            held(served_book(tmp_path, told))
    assert held(served_book(tmp_path, told, "boot 2")) == {}


def test_a_boot_is_marked_with_the_first_use_of_its_book(tmp_path: Path, told: list[str]) -> None:
    """Also where a former release, which marks nothing, wrote the book."""
    grant(served_book(tmp_path, told), 1, "GPU-a")
    (mark,) = (tmp_path / "lib").iterdir()
    assert mark.read_text() == BOOT
    assert mark.stat().st_mode & 0o777 == 0o644
    mark.unlink()
    assert held(served_book(tmp_path, told)) == {"GPU-a": "job:c1:1:0"}
    assert mark.read_text() == BOOT


def test_a_book_that_outlived_a_reboot_is_published_before_its_boot_is_marked(
    tmp_path: Path, told: list[str]
) -> None:
    """People would take what is published, and of another boot, for what was lost."""
    grant(served_book(tmp_path, told), 1, "GPU-a")
    assert held(served_book(tmp_path, told, "boot 2")) == {}
    served = ServedBoot(tmp_path / "lib", tmp_path / "run", "boot 2")
    assert served.is_noted()
    assert read_published(tmp_path / "run", "n1", "boot 2", served) is not None


def test_the_mark_of_another_directory_or_user_says_nothing(
    tmp_path: Path, told: list[str]
) -> None:
    held(served_book(tmp_path, told))
    other = ServedBoot(tmp_path / "lib", tmp_path / "run-2", BOOT)
    assert not other.is_noted()
    mark = ServedBoot(tmp_path / "lib", tmp_path / "run", BOOT)
    assert mark.is_noted()
    mark.path.chmod(0o666)
    assert not ServedBoot(tmp_path / "lib", tmp_path / "run", BOOT).is_noted()


def test_without_a_place_for_the_mark_the_book_serves_all_the_same(
    tmp_path: Path, told: list[str]
) -> None:
    (tmp_path / "lib").write_text("")
    grant(served_book(tmp_path, told), 1, "GPU-a")
    assert held(served_book(tmp_path, told)) == {"GPU-a": "job:c1:1:0"}


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
    monkeypatch.setattr(book_transaction, "MAX_JOURNAL_BYTES_FOR_NOTES", 10)
    with book_file.open() as transaction:
        transaction.apply_and_journal(JournalEntry(PROLOG, transaction.now, reason="an outcome"))
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


@pytest.mark.slow
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
