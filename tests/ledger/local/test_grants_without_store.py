"""The node alone grants by the rules of the store's scripts, and leaves the store what it did."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ledger_samples import Store, job, new_node_name, observation, uuid, wait_for_next_ms
from ledgers.hook_ledger import CommittingLedger, hook_ledger

from canhazgpu.errors import NodeStateError, StoreError
from canhazgpu.ledger.grant_answers import BlockedGpu, GrantedGpus, TooFewGpus
from canhazgpu.ledger.local.book.book_file import BookFile
from canhazgpu.ledger.local.book.book_transaction import BookTransaction
from canhazgpu.ledger.local.jobs.job_records import JobRecords
from canhazgpu.ledger.local.outage import StoreOutage
from canhazgpu.ledger.local.reconcile import Reconciler
from canhazgpu.ledger.port import GrantOptions, Ledger
from canhazgpu.ledger.values import Claim
from canhazgpu.ledger.wait_budget import WaitBudget

NODE = "n1"
GPUS = 4


def alone(node: str, place: Path) -> CommittingLedger:
    """Return the ledger of a node whose store is away."""

    def away(budget: WaitBudget) -> Ledger:
        raise StoreError("away")

    book = BookFile(place, node, "b", JobRecords(place), print)
    reconciler = Reconciler(node, book, print, lambda _: False)
    return hook_ledger(node, away, book, StoreOutage(place, 60.0), reconciler, print)


@pytest.fixture
def book_file(tmp_path: Path) -> BookFile:
    return BookFile(tmp_path, NODE, "b", JobRecords(tmp_path), print)


@pytest.fixture
def local(tmp_path: Path) -> CommittingLedger:
    return alone(NODE, tmp_path)


def kinds(book_file: BookFile) -> list[str]:
    with book_file.open() as transaction:
        return [one.entry.kind for one in transaction.pending.entries]


def test_what_it_grants_and_releases_is_journaled(
    local: CommittingLedger, book_file: BookFile
) -> None:
    assert local.reserve_count(job(1), 2, observation(NODE)) == GrantedGpus((uuid(0), uuid(1)))
    assert local.renew(NODE, job(1).owner) == [uuid(0), uuid(1)]
    assert local.release(NODE, job(1).owner, "end") == [uuid(0), uuid(1)]
    assert local.read_nodes([NODE])[0].reservations == {}
    assert kinds(book_file) == ["grant", "release"]


def among(*indices: int) -> GrantOptions:
    return GrantOptions(candidates=frozenset(map(uuid, indices)))


def test_a_count_is_granted_among_the_candidates_alone(local: CommittingLedger) -> None:
    seen = observation(NODE, in_use=(1,))
    short = local.reserve_count(job(1), 2, seen, among(1, 3))
    assert short == TooFewGpus(2, 1, 0, 1, 0, 0)
    assert local.reserve_count(job(2), 1, seen, among()) == TooFewGpus(1, 0, 0, 0, 0, 0)
    granted = local.reserve_count(job(3), 2, seen, among(1, 2, 3))
    assert granted == GrantedGpus((uuid(2), uuid(3)))


def test_a_release_of_nothing_is_journaled_too(
    local: CommittingLedger, book_file: BookFile
) -> None:
    """The store may have granted what nobody heard of."""
    assert local.release(NODE, job(1).owner, "end") == []
    assert kinds(book_file) == ["release"]


def test_quarantines(local: CommittingLedger, book_file: BookFile) -> None:
    assert local.quarantine(NODE, uuid(0), "memory stays", "epilog")
    assert not local.quarantine(NODE, uuid(0), "again", "epilog")
    answer = local.reserve_given(job(1), [uuid(0)], observation(NODE))
    assert answer == BlockedGpu(uuid(0), "quarantined")
    assert local.unquarantine(NODE, uuid(0), "health check")
    assert not local.unquarantine(NODE, uuid(0), "health check")
    assert kinds(book_file) == ["quarantine", "unquarantine"]


def test_of_another_node_it_knows_nothing(local: CommittingLedger) -> None:
    for ask in (
        lambda: local.release("n2", "job:c1:1:0", "end"),
        lambda: local.renew("n2", "job:c1:1:0"),
        lambda: local.quarantine("n2", uuid(0), "hot", "root"),
        lambda: local.unquarantine("n2", uuid(0), "root"),
    ):
        with pytest.raises(StoreError, match="n1 changes nothing on n2"):
            ask()


def test_a_grant_that_is_in_the_journal_is_given_though_the_book_cannot_be_written(
    local: CommittingLedger, book_file: BookFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is told of an error who has the GPUs: a disk may be full for new files alone."""
    write = BookFile._write

    def full(book: BookFile, transaction: BookTransaction, kept: str) -> None:
        if transaction.pending.entries:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(book, transaction, kept)

    with monkeypatch.context() as patch:
        patch.setattr(BookFile, "_write", full)
        granted = local.reserve_count(job(1), 1, observation(NODE))
    assert granted == GrantedGpus((uuid(0),))
    assert kinds(book_file) == ["grant"]
    assert list(local.read_nodes([NODE])[0].reservations) == [uuid(0)]


def test_what_cannot_be_kept_is_not_granted(tmp_path: Path) -> None:
    place = tmp_path / "run"
    (place / ".book.json.new").mkdir(parents=True)
    local = alone(NODE, place)
    with pytest.raises(NodeStateError):
        local.reserve_count(job(1), 1, observation(NODE))


INDICES = st.integers(0, GPUS - 1)
SOME = st.lists(INDICES, min_size=1, max_size=GPUS, unique=True)
OWNERS = st.builds(job, st.integers(1, 3), st.integers(0, 1))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("count"), OWNERS, st.integers(0, GPUS + 1)),
        st.tuples(st.just("given"), OWNERS, SOME),
        st.tuples(st.just("release"), OWNERS, st.just([]) | SOME),
        st.tuples(st.just("quarantine"), INDICES, st.booleans()),
        st.tuples(st.just("seen"), SOME | st.just([]), SOME | st.just([])),
    ),
    max_size=25,
)


@pytest.mark.slow
@given(steps=STEPS)
@settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
def test_its_answers_are_the_stores(
    steps: list[tuple[object, ...]], store: Store, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The same questions in the same order, to a node alone and to a store."""
    node = new_node_name()
    place = tmp_path_factory.mktemp("run")
    local = alone(node, place)
    remote = store.ledger()
    in_use: tuple[int, ...] = ()
    unknown: tuple[int, ...] = ()
    for kind, *what in steps:
        wait_for_next_ms()
        seen = observation(node, GPUS, in_use=in_use, unknown=unknown)
        if kind == "count":
            claim, count = what
            answers = [one.reserve_count(claim, count, seen) for one in (local, remote)]
        elif kind == "given":
            claim, places = what
            wanted = [uuid(place) for place in places]
            answers = [one.reserve_given(claim, wanted, seen) for one in (local, remote)]
        elif kind == "release":
            claim, places = what
            named = [uuid(place) for place in places]
            answers = [
                sorted(one.release(node, claim.owner, "end", named)) for one in (local, remote)
            ]
        elif kind == "quarantine":
            place, on = what
            answers = [
                one.quarantine(node, uuid(place), "hot", "root")
                if on
                else one.unquarantine(node, uuid(place), "root")
                for one in (local, remote)
            ]
        else:
            in_use, unknown = map(tuple, what)
            unknown = tuple(set(unknown) - set(in_use))
            continue
        assert _plain(answers[0]) == _plain(answers[1]), (kind, what)
    (shown,) = remote.read_nodes([node])
    (mine,) = local.read_nodes([node])
    for theirs, ours in ((shown.reservations, mine.reservations),):
        assert {gpu: one.claim for gpu, one in theirs.items()} == {
            gpu: one.claim for gpu, one in ours.items()
        }
    assert shown.released_at.keys() == mine.released_at.keys()
    assert shown.quarantines.keys() == mine.quarantines.keys()


def _plain(answer: object) -> object:
    """Return what two ledgers can agree on: not the time of a grant."""
    if isinstance(answer, BlockedGpu):
        return answer.gpu, answer.why, answer.holder and answer.holder.claim
    return answer


def test_a_stale_scan_is_told_apart(local: CommittingLedger) -> None:
    local.reserve_given(job(1), [uuid(0)], observation(NODE))
    old = observation(NODE, age_s=5.0)
    local.release(NODE, job(1).owner, "end")
    assert local.reserve_given(job(2), [uuid(0)], old) == BlockedGpu(uuid(0), "stale")
    assert local.reserve_count(job(2), 4, old) == TooFewGpus(4, 3, 0, 0, 0, 1)


def test_what_expires_is_free_then(local: CommittingLedger, book_file: BookFile) -> None:
    from canhazgpu.ledger.values import NodeView, Reservation
    from canhazgpu.node.boot_clock import uptime_s

    manual = Claim("manual:a", "manual", "eve", 1002, duration_s=60)
    with book_file.open() as transaction:
        held = Reservation(uuid(0), manual, transaction.now - 61, transaction.now - 1)
        transaction.refresh(
            NodeView(NODE, transaction.now, None, None, {uuid(0): held}), uptime_s()
        )
    assert isinstance(local.reserve_given(job(1), [uuid(0)], observation(NODE)), GrantedGpus)
