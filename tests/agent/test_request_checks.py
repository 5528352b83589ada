"""Each check that a grant rests on: a scenario that goes well with it, and wrong without it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from ledgers.request_world import INTENT_LIFE_S, Request, Worker, World

from canhazgpu.agent import request_state
from canhazgpu.agent.request_state import ClientEvent, ClientState, HandlerEvent, HandlerState
from canhazgpu.ledger.grant_answers import CommitRefusal
from canhazgpu.ledger.local import book_grants, book_releases, rebuild
from canhazgpu.ledger.local.book import book_transaction, grant_steps
from canhazgpu.ledger.local.book.journal import Journal
from canhazgpu.ledger.local.book.rebuilt_book import rebuilt_book
from canhazgpu.ledger.local.book.served_boot import ServedBoot
from canhazgpu.ledger.local.reconcile import Reconciler
from canhazgpu.ledger.owner import JobOwner
from canhazgpu.ledger.store import session


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.close()


def ask(world: World, *gpus: str, number: int | None = None) -> tuple[Request, Worker]:
    """A client asks the agent for a new job's GPUs."""
    world.job_number += 1
    request = Request(JobOwner("c1", str(number or world.job_number), 0), gpus or ("GPU-0",))
    world.requests[request.name] = request
    return request, world.new_worker(request, is_direct=False)


def go_on(worker: Worker, until: str = "done") -> None:
    for _ in range(12):
        worker.at = next(worker.steps, "done")
        if worker.at in (until, "done"):
            return


def confirm(world: World, request: Request, worker: Worker) -> None:
    go_on(worker, "ready")
    world.client_event(request, ClientEvent.CONFIRM_BEGUN)
    world.handler_event(request, HandlerEvent.PEER_CONFIRMED)


def asked_until(world: World, until: str, *gpus: str) -> tuple[Request, Worker]:
    request, worker = ask(world, *gpus)
    confirm(world, request, worker)
    go_on(worker, until)
    return request, worker


def taken_by_the_former_release(world: World) -> None:
    """A hook of the former release writes the book without intents, and grants their GPUs."""
    world.gate.mode = "down"
    _, worker = asked_until(world, "looked again")
    world.job_number += 1
    other = Request(JobOwner("c1", str(world.job_number), 0), ("GPU-0",))
    assert world.start_by_former_release(other)
    go_on(worker)
    world.check_invariants()


def an_epilog_that_only_fences(world: World) -> None:
    """It is killed before it releases anything."""
    request, worker = asked_until(world, "looked again")
    world.records.end(request.owner.job_id, last=True)
    world.ended.add(request.name)
    go_on(worker)


def a_client_that_is_killed(world: World) -> None:
    request, worker = asked_until(world, "looked again")
    request.client_lives = False
    go_on(worker)


def a_worker_that_stops(world: World) -> None:
    asked_until(world, "opened")
    world.check_rest()


def two_without_the_store(world: World) -> None:
    world.gate.mode = "down"
    _, first = asked_until(world, "looked again")
    _, second = asked_until(world, "looked again")
    go_on(first)
    go_on(second)
    world.check_invariants()


def a_job_that_ends_while_its_worker_is_stopped(world: World) -> None:
    """The next job gets the GPU at once."""
    request, _ = asked_until(world, "confirmed")
    world.end_job(request.owner)
    after, _ = asked_until(world, "done")
    assert after.name in world.running


def a_client_that_never_confirms(world: World) -> None:
    _, worker = ask(world)
    go_on(worker)
    assert world.running == {}


def a_client_that_loses_patience(world: World) -> None:
    request, worker = asked_until(world, "looked again")
    world.client_event(request, ClientEvent.TIME_OUT)
    go_on(worker)


def a_script_that_comes_late(world: World) -> None:
    """The worker is dead, and the store knows that its intent is undone before the script comes."""
    world.gate.mode = "slow"
    request, worker = asked_until(world, "confirmed")
    world.gate.mode = "up"
    world.kill(worker)
    world.end_job(request.owner)
    (confirmation,) = world.gate.late
    confirmation()
    assert world.held_in_store() == {}


def a_script_that_comes_after_its_answer_is_forgotten(world: World) -> None:
    world.gate.mode = "slow"
    request, worker = asked_until(world, "confirmed")
    world.gate.mode = "up"
    world.kill(worker)
    world.end_job(request.owner)
    asked_until(world, "done", "GPU-1")
    (confirmation,) = world.gate.late
    confirmation()
    assert world.held_in_store().keys() == world.running.keys()


def a_reaper_that_decides_late(world: World) -> None:
    """It saw a grant of a killed prolog; the prolog's second run has made another one since."""
    request, worker = asked_until(world, "looked again")
    go_on(worker, "committed")
    reaper = world.ledger()
    reaper.read_nodes([world.node])
    world.ledger().release(world.node, request.name, "its prolog was killed")
    world.running.clear()
    world.committed_by.clear()
    world.kill(worker)
    world.requests.pop(request.name)
    again, second = ask(world, number=int(request.owner.job_id))
    confirm(world, again, second)
    go_on(second)
    assert again.name in world.running
    reaper.release(world.node, again.name, "gone")
    world.check_invariants()


def a_gpu_that_the_store_does_not_know_to_be_released(world: World) -> None:
    request, _ = asked_until(world, "done")
    world.gate.mode = "down"
    world.end_job(request.owner)
    world.gate.mode = "up"
    after, _ = asked_until(world, "done")
    assert after.name in world.running


def a_book_that_is_lost_while_the_store_is_away(world: World) -> None:
    asked_until(world, "done")
    world.gate.mode = "down"
    world.lose_book(with_records=True)
    asked_until(world, "done")
    world.check_invariants()


def a_book_and_a_store_that_are_lost(world: World) -> None:
    """Only Slurm knows the job."""
    asked_until(world, "done")
    world.forget_store()
    world.lose_book(with_records=True)
    asked_until(world, "done")
    world.check_invariants()


def a_book_that_is_lost_where_the_scheduler_does_not_know_the_gpus(world: World) -> None:
    """The store does; its other GPUs are granted."""
    world.scheduler_names_gpus = False
    asked_until(world, "done")
    world.lose_book(with_records=True)
    asked_until(world, "done")
    world.check_invariants()
    after, _ = asked_until(world, "done", "GPU-1")
    assert after.name in world.running


def a_lost_book_whose_jobs_nobody_can_place(world: World) -> None:
    world.scheduler_names_gpus = False
    asked_until(world, "done")
    world.forget_store()
    world.lose_book(with_records=True)
    asked_until(world, "done")
    world.check_invariants()


def a_book_that_is_lost_after_it_gave_a_number(world: World) -> None:
    """The store has an answer to it, and to nobody else's."""
    request, _ = asked_until(world, "done", "GPU-1")
    world.end_job(request.owner)
    asked_until(world, "confirmed")
    world.lose_book(with_records=False)
    after, _ = asked_until(world, "done", "GPU-1")
    assert after.name in world.running
    assert world.held_in_store().get(after.name) == {"GPU-1"}


def without_refusal(check: CommitRefusal) -> Callable[[], Any]:
    def make() -> Any:
        real = grant_steps.commit_refusal
        return lambda *given: None if (why := real(*given)) is check else why

    return make


def with_script(name: str, text: str, other: str) -> Callable[[], Any]:
    """Replace a text of one script."""

    def make() -> Any:
        real = session.load_script

        def load_script(script: str) -> session.LoadedScript:
            whole = real(script).text
            assert script != name or text in whole
            return session.LoadedScript.of(whole.replace(text, other) if script == name else whole)

        return load_script

    return make


Scenario = Callable[[World], None]
CHECKS: dict[str, tuple[Scenario, Any, str, Callable[[], Any]]] = {
    "the book still holds this very intent": (
        taken_by_the_former_release,
        book_grants,
        "commit_refusal",
        without_refusal(CommitRefusal.CANCELLED),
    ),
    "its attempt is not fenced": (
        an_epilog_that_only_fences,
        book_grants,
        "commit_refusal",
        without_refusal(CommitRefusal.FENCED),
    ),
    "its peer lives": (
        a_client_that_is_killed,
        book_grants,
        "commit_refusal",
        without_refusal(CommitRefusal.PEER_GONE),
    ),
    "an intent ends with its deadline": (
        a_worker_that_stops,
        book_transaction,
        "intents_over",
        lambda: lambda book, uptime_s, is_alive: (),
    ),
    "an intent is in the way of others": (
        two_without_the_store,
        book_grants,
        "with_open_intents",
        lambda: lambda book, owner="": book,
    ),
    "a release cancels its owner's intent": (
        a_job_that_ends_while_its_worker_is_stopped,
        book_releases,
        "release_entries",
        lambda: lambda book, entry, seen: (entry,),
    ),
    "the handler begins only when the client has confirmed": (
        a_client_that_never_confirms,
        request_state,
        "may_act",
        lambda: lambda state: state in (HandlerState.READY, HandlerState.CONFIRMED),
    ),
    "the client acts only when the handler is dead": (
        a_client_that_loses_patience,
        request_state,
        "_CLIENT",
        lambda: {
            **request_state._CLIENT,
            (ClientState.COMMITTED, ClientEvent.TIME_OUT): ClientState.DIRECT,
        },
    ),
    "an undone number stays refused": (
        a_script_that_comes_late,
        session,
        "load_script",
        with_script("confirm", "if before == 'over' then", "if false then"),
    ),
    "a settled number stays refused": (
        a_script_that_comes_after_its_answer_is_forgotten,
        session,
        "load_script",
        with_script("confirm", "grant_number <= settled_through()", "false"),
    ),
    "a release names its grant": (
        a_reaper_that_decides_late,
        book_releases,
        "release_entries",
        lambda: lambda book, entry, seen: grant_steps.release_entries(book, entry, None),
    ),
    "a confirmation carries what the store lacks": (
        a_gpu_that_the_store_does_not_know_to_be_released,
        Reconciler,
        "deliverable",
        lambda: lambda self, entries: (),
    ),
    "a book that is missing in a boot that was served is unknown": (
        a_book_that_is_lost_while_the_store_is_away,
        ServedBoot,
        "is_noted",
        lambda: lambda self: False,
    ),
    "a lost book is rebuilt from Slurm": (
        a_book_and_a_store_that_are_lost,
        rebuild,
        "rebuilt_book",
        lambda: lambda view, records, _jobs, *others: rebuilt_book(view, records, (), *others),
    ),
    "a lost book is rebuilt from the store": (
        a_book_that_is_lost_where_the_scheduler_does_not_know_the_gpus,
        rebuild,
        "rebuilt_book",
        lambda: lambda view, *others: rebuilt_book(replace(view, reservations={}), *others),
    ),
    "a book is not rebuilt while a job's GPUs are not known": (
        a_lost_book_whose_jobs_nobody_can_place,
        rebuild,
        "rebuilt_book",
        lambda: lambda *given: replace(rebuilt_book(*given), undetermined=()),
    ),
    "a rebuilt book begins a new journal": (
        a_book_that_is_lost_after_it_gave_a_number,
        Journal,
        "remove",
        lambda: lambda self: None,
    ),
}


@pytest.mark.parametrize("check", CHECKS)
def test_with_the_check_it_goes_well(world: World, check: str) -> None:
    CHECKS[check][0](world)


@pytest.mark.parametrize("check", CHECKS)
def test_without_the_check_it_goes_wrong(
    world: World, check: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario, holder, name, make = CHECKS[check]
    monkeypatch.setattr(holder, name, make())
    with pytest.raises(AssertionError):
        scenario(world)


def test_an_intent_may_be_committed_until_its_deadline(world: World) -> None:
    _, worker = asked_until(world, "looked again")
    world.uptime += INTENT_LIFE_S
    go_on(worker)
    assert world.running == {}
