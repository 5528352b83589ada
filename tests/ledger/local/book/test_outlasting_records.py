"""People's reservations and quarantines outlast a reboot, whether or not the store answers then."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from ledger_samples import gpus, job, manual, new_node_name, observation, run, uuid
from ledgers.hook_ledger import CommittingLedger, hook_ledger
from servers.private_redis import shared_server

from canhazgpu.config.schema import StoreConfig
from canhazgpu.errors import StoreError
from canhazgpu.ledger.grant_answers import BlockedGpu, GrantedGpus
from canhazgpu.ledger.local.book.book_file import BookFile
from canhazgpu.ledger.local.book.served_boot import ServedBoot
from canhazgpu.ledger.local.jobs.job_records import JobRecords
from canhazgpu.ledger.local.outage import StoreOutage
from canhazgpu.ledger.local.reconcile import Reconciler
from canhazgpu.ledger.port import Ledger
from canhazgpu.ledger.store.connect import Role
from canhazgpu.ledger.store.keys import node_keys
from canhazgpu.ledger.store.ledger import RedisLedger
from canhazgpu.ledger.wait_budget import WaitBudget

HOUR_S = 3600.0


class Node:
    """A node with an agent, whose records of a boot go with it; the store may be away."""

    def __init__(self, base: Path) -> None:
        self.name = new_node_name()
        self.base = base
        self.state_dir = base / "run"
        self.boot = 1
        self.is_away = False
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
        return self.store

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


@pytest.mark.parametrize("away", ["never", "since the boot", "always"])
def test_a_reservation_outlasts_a_reboot(node: Node, away: str) -> None:
    node.is_away = away == "always"
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
    assert view.reservations[uuid(0)].expires_at == pytest.approx(extended.expires_at, abs=0.01)
    node.ledger().release(node.name, "manual:1", "by hand")
    assert not node.file.exists()
    node.reboot()
    assert node.holders() == {}


@pytest.mark.parametrize("away", ["never", "since the boot", "always"])
def test_a_quarantine_outlasts_a_reboot(node: Node, away: str) -> None:
    node.is_away = away == "always"
    assert node.ledger().quarantine(node.name, uuid(0), "a fan", "root")
    node.is_away = away != "never"
    node.reboot()
    assert node.refusal(0) == "quarantined"
    assert node.ledger().unquarantine(node.name, uuid(0), "root")
    assert not node.file.exists()
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


def test_a_store_that_lost_its_data_meanwhile_has_them_again(node: Node) -> None:
    node.reserve(1, 0)
    node.reboot()
    with shared_server().client() as direct:
        direct.delete(*node_keys(node.name).in_order())
    assert node.refusal(0) == "reserved"
    assert node.in_store() == {uuid(0): "manual:1"}


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
        assert kept == pytest.approx(end, abs=0.01)


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
    "a quarantine of no GPU": '{"format": 1, "node": "%s", "held": {}, "quarantines": [7]}',
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
