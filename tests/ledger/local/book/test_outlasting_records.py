"""People's reservations and quarantines outlast a reboot, whether or not the store answers then."""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from ledger_samples import gpus, job, manual, new_node_name, observation, run, uuid
from ledgers.hook_ledger import CommittingLedger, hook_ledger
from polling import poll_until
from servers.private_redis import shared_server

from canhazgpu.config.schema import StoreConfig
from canhazgpu.errors import StoreError
from canhazgpu.ledger.grant_answers import BlockedGpu, GrantedGpus
from canhazgpu.ledger.journal_entries import (
    GRANT,
    PROLOG,
    QUARANTINE,
    RELEASE,
    JournalEntry,
    NumberedEntry,
)
from canhazgpu.ledger.local.book import book_file as book_module
from canhazgpu.ledger.local.book.book import Book
from canhazgpu.ledger.local.book.book_clock import BookClock, Correction
from canhazgpu.ledger.local.book.book_file import BookFile
from canhazgpu.ledger.local.book.book_transaction import BookTransaction
from canhazgpu.ledger.local.book.outlasting_records import (
    outlasting_from_bytes,
    outlasting_records,
    outlasting_to_bytes,
    repeated_entries,
)
from canhazgpu.ledger.local.book.served_boot import ServedBoot
from canhazgpu.ledger.local.jobs.job_records import JobRecords
from canhazgpu.ledger.local.outage import StoreOutage
from canhazgpu.ledger.local.reconcile import Reconciler
from canhazgpu.ledger.port import Ledger
from canhazgpu.ledger.release_reasons import EXPIRED
from canhazgpu.ledger.store.connect import Role
from canhazgpu.ledger.store.keys import node_keys
from canhazgpu.ledger.store.ledger import RedisLedger
from canhazgpu.ledger.values import Reservation
from canhazgpu.ledger.wait_budget import WaitBudget
from canhazgpu.node.state_files import write_durably

HOUR_S = 3600.0


class RefusingStore:
    """The store, which can be read and takes no changes."""

    def __init__(self, store: RedisLedger) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def record_entries(self, *_: object) -> None:
        raise StoreError("it takes no changes")


class Node:
    """A node with an agent, whose records of a boot go with it; the store may be away."""

    def __init__(self, base: Path) -> None:
        self.name = new_node_name()
        self.base = base
        self.state_dir = base / "run"
        self.boot = 1
        self.is_away = False
        self.refuses = False
        self.told: list[str] = []
        self.store = RedisLedger(StoreConfig(url=shared_server().url), Role.WRITE)

    @property
    def served(self) -> ServedBoot:
        return ServedBoot(self.base / "lib", self.state_dir, str(self.boot))

    @property
    def file(self) -> Path:
        return self.served.kept_path

    def book(self) -> BookFile:
        records = JobRecords(self.state_dir)
        boot = str(self.boot)
        return BookFile(
            self.state_dir, self.name, boot, records, self.told.append, served=self.served
        )

    def ledger(self) -> CommittingLedger:
        book = self.book()
        reconciler = Reconciler(self.name, book, self.told.append, lambda _: False)
        outage = StoreOutage(self.state_dir, 60.0)
        return hook_ledger(self.name, self.open_store, book, outage, reconciler, self.told.append)

    def open_store(self, budget: WaitBudget) -> Ledger:
        if self.is_away:
            raise StoreError("away")
        return cast(Ledger, RefusingStore(self.store)) if self.refuses else self.store

    def reboot(self) -> None:
        shutil.rmtree(self.state_dir, ignore_errors=True)
        self.boot += 1

    def reserve(self, number: int, index: int, duration_s: float = HOUR_S) -> None:
        claim = manual(number, duration_s)
        answer = self.ledger().reserve_given(claim, gpus(index), observation(self.name))
        assert answer == GrantedGpus(gpus(index))

    def holders(self) -> dict[str, str]:
        (view,) = self.ledger().read_nodes([self.name])
        return {gpu: one.claim.owner for gpu, one in view.reservations.items()}

    def in_store(self) -> dict[str, str]:
        (view,) = self.store.read_nodes([self.name])
        return {gpu: one.claim.owner for gpu, one in view.reservations.items()}

    def refusal(self, index: int) -> str:
        """Why a job is not granted this GPU, "" where it is."""
        claim = replace(job(9), boot_id=str(self.boot))
        answer = self.ledger().reserve_given(claim, gpus(index), observation(self.name))
        if isinstance(answer, GrantedGpus):
            return ""
        assert isinstance(answer, BlockedGpu)
        return answer.why


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


AWAY = pytest.mark.parametrize("away", ["never", "since the boot", "before"])


@AWAY
def test_a_reservation_outlasts_a_reboot(node: Node, away: str) -> None:
    node.holders()  # the store has told the time
    node.is_away = away == "before"
    node.reserve(1, 0)
    node.is_away = away != "never"
    node.reboot()
    assert node.refusal(0) == "reserved"
    assert node.refusal(1) == ""
    assert node.holders() == {uuid(0): "manual:1", uuid(1): job(9).owner}
    # When the store is back, it has it, too, for as long as was promised.
    node.is_away = False
    assert node.holders()[uuid(0)] == "manual:1"
    (view,) = node.store.read_nodes([node.name])
    one = view.reservations[uuid(0)]
    assert (one.claim.user, one.claim.note) == (manual(1).user, manual(1).note)
    assert one.expires_at is not None
    assert one.expires_at - view.read_at == pytest.approx(HOUR_S, abs=60.0)


def test_what_somebody_reserved_without_the_agent_outlasts_a_reboot_as_well(node: Node) -> None:
    answer = node.store.reserve_given(manual(1), gpus(0), observation(node.name))
    assert answer == GrantedGpus(gpus(0))
    assert node.holders() == {uuid(0): "manual:1"}
    node.reboot()
    node.is_away = True
    assert node.refusal(0) == "reserved"


def test_what_depends_on_a_boot_is_not_kept(node: Node) -> None:
    a_job = replace(job(1), boot_id="1")
    node.ledger().reserve_given(a_job, gpus(0), observation(node.name))
    a_run = replace(run(2), boot_id="1")
    node.ledger().reserve_given(a_run, gpus(1), observation(node.name))
    assert set(node.holders()) == {uuid(0), uuid(1)}
    assert not node.file.exists()
    node.reboot()
    node.is_away = True
    assert node.holders() == {}


def test_an_extension_is_kept_and_a_release(node: Node) -> None:
    node.reserve(1, 0)
    node.reserve(2, 1)
    (extended,) = node.ledger().extend(node.name, "manual:1", HOUR_S)
    node.ledger().release(node.name, "manual:2", "by hand")
    node.is_away = True
    node.reboot()
    assert node.holders() == {uuid(0): "manual:1"}
    (view,) = node.ledger().read_nodes([node.name])
    assert view.reservations[uuid(0)].expires_at == pytest.approx(extended.expires_at, abs=1.0)
    node.ledger().release(node.name, "manual:1", "by hand")
    assert kept_of(node) == {}
    node.reboot()
    assert node.holders() == {}


@AWAY
def test_a_quarantine_outlasts_a_reboot(node: Node, away: str) -> None:
    node.holders()
    node.is_away = away == "before"
    assert node.ledger().quarantine(node.name, uuid(0), "a fan", "root")
    node.is_away = away != "never"
    node.reboot()
    assert node.refusal(0) == "quarantined"
    assert node.ledger().unquarantine(node.name, uuid(0), "root")
    node.reboot()
    assert node.refusal(0) == ""


def test_a_quarantine_that_was_lifted_meanwhile_is_lifted(node: Node) -> None:
    node.ledger().quarantine(node.name, uuid(0), "a fan", "root")
    node.reboot()
    node.store.unquarantine(node.name, uuid(0), "root")
    assert node.refusal(0) == ""
    assert not node.file.exists()


def test_what_is_over_during_the_reboot_is_over(node: Node) -> None:
    node.reserve(1, 0, duration_s=0.05)
    node.is_away = True
    node.reboot()
    while node.holders():
        pass
    assert node.refusal(0) == ""
    assert not node.file.exists()


def test_who_was_released_meanwhile_does_not_come_back(node: Node) -> None:
    """By the store, while the node was off."""
    node.reserve(1, 0)
    node.reboot()
    node.store.release(node.name, "manual:1", "by hand")
    assert node.holders() == {}
    assert node.refusal(0) == ""
    assert not node.file.exists()


def test_the_store_says_who_has_a_gpu(node: Node) -> None:
    """A file that was not written when its reservation ended takes nothing from anybody."""
    node.reserve(1, 0)
    old = node.file.read_bytes()
    node.ledger().release(node.name, "manual:1", "by hand")
    node.reserve(2, 0)
    node.file.write_bytes(old)
    node.reboot()
    assert node.holders() == {uuid(0): "manual:2"}
    assert node.in_store() == {uuid(0): "manual:2"}
    assert "manual:2" in node.file.read_text()


def kept_of(node: Node) -> dict[str, str]:
    """By GPU the owner that the file names."""
    if not node.file.exists():
        return {}
    held = json.loads(node.file.read_text())["held"]
    return {gpu: json.loads(text)["owner"] for gpu, text in held.items()}


def test_whoever_writes_it_dies_at_any_moment(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next one who opens the book writes what is missing."""
    node.reserve(1, 0)

    class KilledError(BaseException):
        pass

    def die(*_: object) -> None:
        raise KilledError

    for place in ("_write", "_keep_outlasting"):
        with monkeypatch.context() as patch:
            patch.setattr(BookFile, place, die)
            with pytest.raises(KilledError):
                node.ledger().extend(node.name, "manual:1", 60.0)
        (view,) = node.ledger().read_nodes([node.name])
        end = view.reservations[uuid(0)].expires_at
        data = json.loads(node.file.read_text())
        kept = json.loads(data["held"][uuid(0)])["expires_ms"] / 1000
        assert end is not None and 0.0 <= kept - end <= 1.0


@pytest.mark.parametrize("others", [False, True])
def test_a_grant_that_was_written_down_and_not_made_is_written_down_no_more(
    node: Node, monkeypatch: pytest.MonkeyPatch, others: bool
) -> None:
    """The store has confirmed it, so it is not in the journal."""

    class KilledError(BaseException):
        pass

    write = BookFile._write

    def die(book: BookFile, transaction: BookTransaction, kept: str) -> None:
        if uuid(0) in transaction.book.reservations:
            raise KilledError
        write(book, transaction, kept)

    if others:
        node.reserve(2, 1)
    with monkeypatch.context() as patch:
        patch.setattr(BookFile, "_write", die)
        with pytest.raises(KilledError):
            node.reserve(1, 0)
    assert kept_of(node).pop(uuid(0)) == "manual:1"
    node.store.release(node.name, "manual:1", "by hand")
    assert (
        set(node.holders().values())
        == set(kept_of(node).values())
        == ({"manual:2"} if others else set())
    )


def test_a_release_that_knows_nothing_of_the_file_is_followed(node: Node) -> None:
    """Its hooks, or an agent that was not started anew, wrote the book meanwhile."""
    node.reserve(1, 0)
    node.reserve(2, 1)
    stale = node.file.read_bytes()
    node.ledger().release(node.name, "manual:1", "by hand")
    node.file.write_bytes(stale)
    book = json.loads((node.state_dir / "book.json").read_text())
    del book["kept"]
    (node.state_dir / "book.json").write_text(json.dumps(book))
    node.holders()
    assert kept_of(node) == {uuid(1): "manual:2"}


def test_it_is_written_when_something_has_changed_and_not_otherwise(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes as long as the disk does: a job's hook does not wait for it."""
    written: list[bytes] = []

    def count(path: Path, content: bytes) -> None:
        written.append(content)
        write_durably(path, content)

    monkeypatch.setattr("canhazgpu.ledger.local.book.book_file.write_durably", count)
    node.reserve(1, 0)
    assert len(written) == 1
    node.ledger().quarantine(node.name, uuid(3), "a fan", "root")
    before = len(written)
    for turn in range(20):
        claim = replace(job(turn), boot_id="1")
        node.ledger().reserve_given(claim, gpus(1), observation(node.name))
        node.ledger().release(node.name, claim.owner, "end")
        node.ledger().renew(node.name, "manual:1")
        node.holders()
    # The store's times are some milliseconds later, which may be another second once.
    assert len(written) <= before + 2


def test_a_book_that_cannot_be_written_is_read_all_the_same(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is in the journal counts, and the disk is not waited for again and again."""
    node.reserve(1, 0)
    node.is_away = True
    written: list[bytes] = []

    def count(path: Path, content: bytes) -> None:
        written.append(content)
        write_durably(path, content)

    write = BookFile._write

    def full(book: BookFile, transaction: BookTransaction, kept: str) -> None:
        if uuid(1) in transaction.book.reservations:
            raise OSError(28, "No space left on device")
        write(book, transaction, kept)

    monkeypatch.setattr("canhazgpu.ledger.local.book.book_file.write_durably", count)
    monkeypatch.setattr(BookFile, "_write", full)
    node.reserve(2, 1)
    both = {uuid(0): "manual:1", uuid(1): "manual:2"}
    before = len(written)
    for _ in range(3):
        assert node.holders() == kept_of(node) == both
        assert node.refusal(1) == "reserved"
    assert len(written) <= before + 1


def grant_of(number: int, grant: int | None = None) -> JournalEntry:
    claim = manual(number)
    return JournalEntry(GRANT, 1.0, claim.owner, gpus(number), claim, expires_at=9.0, grant=grant)


def release_of(number: int, *indices: int, reason: str = "by hand") -> JournalEntry:
    return JournalEntry(RELEASE, 2.0, f"manual:{number}", gpus(*indices), reason=reason, grant=7)


HOLDS = Book({uuid(1): Reservation(uuid(1), manual(1), 1.0, 9.0)})


@pytest.mark.parametrize(
    ("entries", "unheard"),
    [
        ([grant_of(1, 3)], [grant_of(1, 3)]),
        # It was granted and released meanwhile.
        ([grant_of(2), release_of(2)], []),
        # The store has its grant.
        ([release_of(2)], [release_of(2)]),
        # An intent of its owner's that came to nothing, before or after.
        ([release_of(1), grant_of(1)], [grant_of(1)]),
        ([grant_of(1), release_of(1)], [grant_of(1)]),
        ([grant_of(1), release_of(1, 0)], [grant_of(1), release_of(1, 0)]),
        # The store knows by itself.
        ([release_of(2, reason=EXPIRED)], []),
        # Jobs and runs end with the boot.
        ([JournalEntry(GRANT, 1.0, run(3).owner, gpus(2), run(3))], []),
        ([JournalEntry(RELEASE, 1.0, run(3).owner, reason="end")], []),
        ([JournalEntry(RELEASE, 1.0, job(3).owner, reason="end")], []),
        ([JournalEntry(PROLOG, 1.0, job(3).owner, reason="x")], []),
    ],
)
def test_what_the_store_is_to_hear_after_a_reboot(
    entries: list[JournalEntry], unheard: list[JournalEntry]
) -> None:
    numbered = [NumberedEntry(number, one) for number, one in enumerate(entries, 1)]
    found = outlasting_records(HOLDS, numbered, BookClock(0.0))
    assert list(found.unheard) == unheard
    read = outlasting_from_bytes(outlasting_to_bytes(found, "n"), "n")
    assert read == found
    for one in repeated_entries(read):
        assert one.grant is None
        assert one.yields == (one.kind == GRANT)


@pytest.mark.parametrize(
    ("clock", "count"),
    [
        (BookClock(0.0), 3),
        (BookClock(0.0, estimated_after=0), 0),
        (BookClock(0.0, estimated_after=2), 2),
        (BookClock(0.0, None, Correction(1, 2, 60.0)), 2),
    ],
)
def test_what_ends_by_another_clock_does_not_outlast_the_boot(clock: BookClock, count: int) -> None:
    held = {uuid(n): Reservation(uuid(n), manual(n), 1.0, 9.0) for n in range(1, 4)}
    entries = [grant_of(1), grant_of(2), grant_of(3)]
    numbered = [NumberedEntry(number, one) for number, one in enumerate(entries, 1)]
    assert len(outlasting_records(Book(held), numbered, clock).unheard) == count
    # A quarantine and a release have no end.
    others = [JournalEntry(QUARANTINE, 1.0, gpus=gpus(1), reason="x", by="y"), release_of(7)]
    numbered = [NumberedEntry(number, one) for number, one in enumerate(others, 1)]
    assert len(outlasting_records(Book(held), numbered, clock).unheard) == 2


def away(node: Node) -> CommittingLedger:
    node.is_away = True
    return node.ledger()


def back_after_a_reboot(node: Node) -> None:
    """The node decides alone first, and the store answers then."""
    node.reboot()
    node.holders()
    node.is_away = False
    node.holders()


def left_s(node: Node) -> float:
    (view,) = node.store.read_nodes([node.name])
    end = view.reservations[uuid(0)].expires_at
    assert end is not None
    return end - view.read_at


def test_what_the_store_had_not_heard_before_the_reboot_it_hears_after_it(node: Node) -> None:
    node.reserve(1, 0)
    node.reserve(2, 1)
    node.ledger().quarantine(node.name, uuid(2), "a fan", "root")
    away(node).extend(node.name, "manual:1", HOUR_S)
    away(node).release(node.name, "manual:2", "by hand")
    away(node).unquarantine(node.name, uuid(2), "root")
    away(node).quarantine(node.name, uuid(3), "hot", "root")
    back_after_a_reboot(node)
    assert node.in_store() == {uuid(0): "manual:1"}
    assert left_s(node) == pytest.approx(2 * HOUR_S, abs=60.0)
    (view,) = node.store.read_nodes([node.name])
    assert set(view.quarantines) == {uuid(3)}
    # All of it once, and in whatever boot.
    assert not json.loads(node.file.read_text())["unheard"]
    kinds = [one.kind for one in node.store.history(node.name, 0.0)]
    assert (kinds.count("release"), kinds.count("extend"), kinds.count("quarantine")) == (1, 1, 2)


def test_it_is_heard_after_several_boots_too(node: Node) -> None:
    node.holders()
    node.is_away = True
    node.reserve(1, 0)
    for _ in range(3):
        node.reboot()
        assert node.holders() == {uuid(0): "manual:1"}
    node.is_away = False
    assert node.refusal(0) == "reserved"
    assert node.in_store() == {uuid(0): "manual:1"}


def test_an_extension_that_the_store_has_not_heard_is_carried_out_after_its_end(node: Node) -> None:
    """The store let the reservation expire meanwhile."""
    node.reserve(1, 0, duration_s=0.5)
    away(node).extend(node.name, "manual:1", HOUR_S)
    poll_until(lambda: node.in_store() == {})
    node.reboot()
    node.is_away = False
    assert node.refusal(0) == "reserved"
    assert left_s(node) == pytest.approx(HOUR_S, abs=60.0)


@pytest.mark.parametrize("tells", ["nothing", "the time"])
@pytest.mark.parametrize("wrong_after", [True, False], ids=["still wrong", "right after"])
@pytest.mark.parametrize("wrong_s", [864000.0, -864000.0], ids=["ahead", "behind"])
def test_what_was_promised_by_a_wrong_clock_lasts_until_the_store_answers(
    node: Node, monkeypatch: pytest.MonkeyPatch, wrong_s: float, wrong_after: bool, tells: str
) -> None:
    """After a reboot nobody can tell when it ends: not even if the store told the time before."""
    right = time.time

    def set_clock(by_s: float) -> None:
        monkeypatch.setattr(book_module.time, "time", lambda: right() + by_s)

    set_clock(wrong_s)
    node.is_away = True
    node.reserve(1, 0)
    node.ledger().extend(node.name, "manual:1", HOUR_S)
    if tells == "the time":
        node.is_away, node.refuses = False, True
        assert node.holders() == {uuid(0): "manual:1"}
        node.is_away, node.refuses = True, False
    node.reboot()
    set_clock(wrong_s if wrong_after else 0.0)
    held = node.holders()
    if wrong_after and tells == "nothing":
        assert held == {uuid(0): "manual:1"}
    node.is_away = False
    assert node.holders() == {}
    assert node.in_store() == kept_of(node) == {}


def test_what_was_promised_by_the_stores_clock_is_not_moved_by_a_wrong_one(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.reserve(2, 1)
    right = time.time
    node.is_away = True
    node.reserve(1, 0)
    node.reboot()
    monkeypatch.setattr(book_module.time, "time", lambda: right() - 864000.0)
    node.holders()
    node.is_away = False
    node.holders()
    assert left_s(node) == pytest.approx(HOUR_S, abs=60.0)


@pytest.mark.parametrize("how", ["forgotten", "without history"])
def test_who_was_released_long_before_the_node_is_back_does_not_come_back(
    node: Node, how: str
) -> None:
    node.reserve(1, 0)
    node.reboot()
    node.store.release(node.name, "manual:1", "by hand")
    if how == "forgotten":
        node.store.forget_node(node.name)
    else:
        with shared_server().client() as direct:
            direct.delete(node_keys(node.name).history)
    assert node.holders() == {}
    assert node.in_store() == {}
    assert kept_of(node) == {}


def test_nodes_of_one_host_do_not_share_the_file(tmp_path: Path) -> None:
    served = [
        ServedBoot(tmp_path, Path("/run") / name, "1") for name in ("n1", "n1.kept", "n1%kept")
    ]
    paths = {path for one in served for path in (one.path, one.kept_path)}
    assert len(paths) == 2 * len(served)


def test_a_file_that_cannot_be_written_is_told_of_and_removed(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.reserve(1, 0)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("canhazgpu.ledger.local.book.book_file.write_durably", full)
        node.reserve(2, 1)
        line = node.told[0]
        assert "event=records-not-kept" in line
        assert "No space left" in line and str(node.file) in line
        assert not node.file.exists()
        # It is tried again each time, and told where it has changed.
        node.holders()
        node.told.clear()
        node.holders()
        assert node.told == []
    node.holders()
    node.is_away = True
    node.reboot()
    assert node.holders() == {uuid(0): "manual:1", uuid(1): "manual:2"}


BAD = {
    "empty": "",
    "no JSON": "{",
    "a list": "[]",
    "another format": '{"format": 2, "node": "%s", "held": {}}',
    "another node": '{"format": 1, "node": "other", "held": {}}',
    "no reservations": '{"format": 1, "node": "%s", "held": 7, "quarantines": []}',
    "no quarantines": '{"format": 1, "node": "%s", "held": {}}',
    "no entries": '{"format": 1, "node": "%s", "held": {}, "quarantines": [], "unheard": {}}',
    "deep": "[" * 100_000,
}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
def test_a_file_that_cannot_be_read_is_told_of(node: Node, text: str) -> None:
    node.reserve(1, 0)
    node.file.write_text(text.replace("%s", node.name))
    node.reboot()
    node.is_away = True
    assert node.holders() == {}
    assert [line for line in node.told if "event=records-unreadable" in line]


def test_a_record_that_cannot_be_read_is_left_out(node: Node) -> None:
    node.reserve(1, 0)
    node.reserve(2, 1)
    data = json.loads(node.file.read_text())
    data["held"] |= {uuid(1): '{"owner": 7}', uuid(2): 1e999}
    data["quarantines"] += [7, {"gpu": uuid(3)}, {"gpu": "g", "reason": "", "since": 1e999}]
    data["unheard"] += [7, {"kind": "grant", "at": 1.0}, {"kind": "x"}, None]
    node.file.write_text(json.dumps(data))
    node.reboot()
    node.is_away = True
    assert node.holders() == {uuid(0): "manual:1"}


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user's file")
def test_a_file_of_another_user_says_nothing(node: Node) -> None:
    node.reserve(1, 0)
    os.chown(node.file, 65534, 65534)
    node.reboot()
    node.is_away = True
    assert node.holders() == {}


def test_it_is_root_s_alone_and_names_its_directory(node: Node) -> None:
    node.reserve(1, 0)
    assert node.file.stat().st_mode & 0o777 == 0o600
    assert sorted(node.file.parent.iterdir()) == sorted([node.file, node.served.path])


def test_a_book_that_was_written_by_an_earlier_release_is_kept_with_its_next_use(
    node: Node,
) -> None:
    node.reserve(1, 0)
    node.file.unlink()
    node.holders()
    assert node.file.exists()
