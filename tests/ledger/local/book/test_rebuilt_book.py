"""A book from the store, the jobs' records and the scheduler: what each of them has to tell."""

from __future__ import annotations

from dataclasses import replace

from canhazgpu.gpu.assigned import AssignedGpu
from canhazgpu.ledger.local.book.rebuilt_book import SchedulersJob, rebuilt_book
from canhazgpu.ledger.local.jobs.job_record import JobRecord
from canhazgpu.ledger.local.runs.run_record import RunRecord
from canhazgpu.ledger.owner import JobOwner
from canhazgpu.ledger.values import Claim, NodeView, Quarantine, Reservation
from canhazgpu.node.process_id import ProcessId

RUN = Claim("run:a", "run", "eve", 1002)


def job(number: int) -> Claim:
    return Claim(f"job:c1:{number}:0", "slurm", "ann", None, str(number))


def stored(**held: Claim) -> NodeView:
    reservations = {gpu: Reservation(gpu, claim, 1.0) for gpu, claim in held.items()}
    return NodeView("n1", 100.0, None, None, reservations)


def record(number: int, *gpus: str) -> JobRecord:
    assigned = tuple(AssignedGpu(place, gpu, place) for place, gpu in enumerate(gpus))
    return JobRecord(JobOwner("c1", str(number), 0), "ann", None, assigned)


def run_record(owner: str, *gpus: str) -> RunRecord:
    claim = Claim(owner, "run", "eve", 1002, processes=(ProcessId(7, 8),))
    return RunRecord(claim, "marker", gpus, 1002, (), 5.0)


def here(number: int, *gpus: str) -> SchedulersJob:
    return SchedulersJob(job(number), gpus)


def owners(
    view: NodeView, records: list[JobRecord] | None = None, jobs: list[SchedulersJob] | None = None
) -> dict[str, str]:
    rebuilt = rebuilt_book(view, records or [], jobs or [])
    assert not rebuilt.undetermined
    return {gpu: one.claim.owner for gpu, one in rebuilt.book.reservations.items()}


def test_each_source_names_what_the_others_lack() -> None:
    assert owners(stored(a=RUN, b=job(1)), [record(2, "c")], [here(3, "d")]) == {
        "a": "run:a",
        "b": "job:c1:1:0",
        "c": "job:c1:2:0",
        "d": "job:c1:3:0",
    }


def test_the_book_keeps_all_jobs_whatever_the_store_says_later() -> None:
    rebuilt = rebuilt_book(stored(a=RUN, b=job(1)), [record(2, "c")], [here(3, "d")])
    assert rebuilt.book.own_owners == {"job:c1:1:0", "job:c1:2:0", "job:c1:3:0"}


def test_the_book_keeps_the_runs_that_the_node_recorded() -> None:
    runs = [run_record("run:a", "a"), run_record("run:b", "b", "c")]
    rebuilt = rebuilt_book(stored(a=RUN), [], [], runs)
    held = {gpu: one.claim.owner for gpu, one in rebuilt.book.reservations.items()}
    assert held == {"a": "run:a", "b": "run:b", "c": "run:b"}
    assert rebuilt.book.own_owners == {"run:a", "run:b"}
    # What the store has of a run, it has from its watcher: the present processes, say.
    assert rebuilt.book.reservations["a"].claim == RUN


def test_a_recorded_run_takes_no_gpu_from_anybody() -> None:
    runs = [run_record("run:b", "a", "b", "c"), run_record("run:c", "a")]
    rebuilt = rebuilt_book(stored(a=RUN), [record(2, "b")], [here(3, "c")], runs)
    held = {gpu: one.claim.owner for gpu, one in rebuilt.book.reservations.items()}
    assert held == {"a": "run:a", "b": "job:c1:2:0", "c": "run:b"}
    assert "run:c" not in rebuilt.book.own_owners


def test_quarantines_and_release_times_are_the_stores() -> None:
    view = NodeView(
        "n1",
        100.0,
        None,
        None,
        {},
        {"a": 7.0},
        {"b": Quarantine("b", "hot", 1.0, "epilog")},
    )
    book = rebuilt_book(view, [], []).book
    assert (book.released_at, set(book.quarantines), book.read_at) == ({"a": 7.0}, {"b"}, 100.0)


def test_a_job_that_the_store_knows_has_what_the_store_says() -> None:
    """The scheduler names devices by their numbers: the grant may be of others."""
    assert owners(stored(a=job(1)), [], [here(1, "b")]) == {"a": "job:c1:1:0"}


def test_a_job_here_comes_before_one_that_is_not() -> None:
    """The store lacks the release of a job that ended while the store was away."""
    assert owners(stored(a=job(1)), [], [here(2, "a")]) == {"a": "job:c1:2:0"}
    assert owners(stored(a=job(1)), [record(2, "a")]) == {"a": "job:c1:2:0"}


def test_a_job_here_takes_nothing_from_people_and_other_jobs_here() -> None:
    """A job may run unchecked beside them: it was warned."""
    assert owners(stored(a=RUN), [], [here(1, "a")]) == {"a": "run:a"}
    assert owners(stored(a=job(2)), [], [here(1, "a"), here(2, "a")]) == {"a": "job:c1:2:0"}


def test_of_a_job_whose_record_has_no_gpus_the_scheduler_tells() -> None:
    """It runs unchecked, or was committed when its prolog was killed."""
    assert owners(stored(), [record(1)], [here(1, "a")]) == {"a": "job:c1:1:0"}


def test_a_job_of_which_nobody_knows_the_gpus_is_named() -> None:
    unknown = SchedulersJob(job(1), None)
    assert rebuilt_book(stored(), [], [unknown]).undetermined == (unknown,)
    assert rebuilt_book(stored(a=job(1)), [], [unknown]).undetermined == ()
    assert rebuilt_book(stored(), [record(1, "a")], [unknown]).undetermined == ()


def test_what_the_store_has_of_an_earlier_boot_is_in_nobodys_way() -> None:
    stale = replace(RUN, boot_id="before")
    view = stored(a=stale, b=replace(RUN, owner="run:b", boot_id="now"))
    rebuilt = rebuilt_book(view, [], [here(3, "a")], boot_id="now")
    held = {gpu: one.claim.owner for gpu, one in rebuilt.book.reservations.items()}
    assert held == {"a": "job:c1:3:0", "b": "run:b"}
