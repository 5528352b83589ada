"""Each check that a grant to people rests on: a scenario that goes wrong without it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from ledgers.people_world import DURATION_S, PeopleWorld, Person
from ledgers.request_world import World, never_stale, raw

from canhazgpu.ledger.grant_answers import CommitRefusal, QueuePosition
from canhazgpu.ledger.local import book_grants, book_releases, rebuild, reconcile
from canhazgpu.ledger.local.book import book, book_transaction, disagreement, grant_steps
from canhazgpu.ledger.local.book.rebuilt_book import rebuilt_book
from canhazgpu.ledger.local.fallback_ledger import FallbackLedger
from canhazgpu.ledger.local.published_ledger import PublishedLedger
from canhazgpu.ledger.local.queue import node_queue
from canhazgpu.ledger.port import GrantOptions
from canhazgpu.ledger.values import Event, Reservation, Waiter

GPU = ("GPU-0",)


@pytest.fixture
def world() -> Iterator[PeopleWorld]:
    made = PeopleWorld()
    yield made
    made.close()


def asked_until(
    world: PeopleWorld, until: str = "done", *, is_run: bool = False, person: Person | None = None
) -> Person:
    """Somebody asks the agent for a GPU, and its handler comes so far."""
    person = person or world.new_person(GPU, is_run=is_run)
    worker = world.ask(person)
    while worker.at not in (until, "done"):
        worker.at = next(worker.steps, "done")
    return person


def go_on(person: Person) -> None:
    for worker in person.workers:
        while worker.at not in ("done", "dead"):
            worker.at = next(worker.steps, "done")


def contact(world: PeopleWorld) -> None:
    """Whoever reads the node next, while the store answers."""
    world.ledger().read_nodes([world.node])


def a_store_that_forgets(world: PeopleWorld) -> None:
    asked_until(world, is_run=True)
    world.forget_store()
    contact(world)
    world.check_invariants()
    world.check_rest()


def a_client_that_is_killed(world: PeopleWorld) -> None:
    person = asked_until(world, "looked again", is_run=True)
    person.client_lives = False
    go_on(person)


def two_without_the_store(world: PeopleWorld) -> None:
    world.gate.mode = "down"
    first, second = asked_until(world, "looked again"), asked_until(world, "looked again")
    go_on(first)
    go_on(second)
    world.check_invariants()


def a_handler_that_stops(world: PeopleWorld) -> None:
    """Another one serves the client, and the first one goes on."""
    person = asked_until(world, "looked again")
    world.uptime += 60.0
    other = asked_until(world)
    assert other.holds
    go_on(person)
    world.check_invariants()


def a_release_by_a_command_without_the_agent(world: PeopleWorld) -> None:
    person = asked_until(world)
    world.direct_store.release(world.node, person.name, "needed", by="root")
    world.forget(person)
    contact(world)
    assert world.held_in_book() == world.held_in_store() == {}


def a_store_that_loses_what_was_granted_at_the_second_time(world: PeopleWorld) -> None:
    """The first handler was killed; what the second one did first was to undo its grant."""
    person = asked_until(world, "confirmed", is_run=True)
    world.kill(person.workers[0])
    asked_until(world, person=person)
    assert person.holds
    with raw() as client:
        client.delete(f"canhazgpu:{{{world.node}}}:reservations")
    assert world.held_in_store() == {}
    contact(world)
    world.check_invariants()
    assert world.held_in_store() == {person.name: set(GPU)}


def an_old_copy_with_what_was_released(world: PeopleWorld) -> None:
    person = asked_until(world)
    copy = world.copy_store()
    world.end(person, by="root")
    world.restore_store(copy)
    contact(world)
    assert world.held_in_book() == world.held_in_store() == {}


def an_old_copy_with_another_owner(world: PeopleWorld) -> None:
    """One that never asked the agent."""
    before = world.new_person(GPU, is_run=False)
    world.ask_directly(before)
    assert before.holds
    copy = world.copy_store()
    world.direct_store.release(world.node, before.name, "end")
    world.forget(before)
    contact(world)
    person = asked_until(world)
    assert person.holds
    world.restore_store(copy)
    contact(world)
    assert world.held_in_store() == {person.name: set(GPU)}


def an_old_copy_with_the_former_end(world: PeopleWorld) -> None:
    person = asked_until(world)
    copy = world.copy_store()
    world.extend(person)
    world.restore_store(copy)
    contact(world)
    (view,) = world.direct_store.read_nodes([world.node])
    (held,) = view.reservations.values()
    assert (held.expires_at or 0.0) >= person.told_end - 0.01


def an_end_without_the_store(world: PeopleWorld) -> None:
    world.gate.mode = "down"
    person = asked_until(world)
    assert person.holds
    world.forget(person)
    world.uptime += DURATION_S + 1
    asked_until(world)
    assert person.name not in world.held_in_book()


def a_reaper_that_decides_late(world: PeopleWorld) -> None:
    """Its owner has asked again under the same token since, and holds GPUs."""
    person = asked_until(world, is_run=True)
    reaper = world.ledger()
    reaper.read_nodes([world.node])
    world.ledger().release(world.node, person.name, "gave up")
    person.holds = False
    asked_until(world, person=person)
    assert person.holds
    reaper.release(world.node, person.name, "its processes are gone")
    world.check_invariants()


def a_command_without_the_agent_after_a_loss_of_the_store(world: PeopleWorld) -> None:
    asked_until(world)
    world.forget_store()
    world.ask_directly(world.new_person(GPU, is_run=True))
    world.check_invariants()


def one_that_comes_after_another_in_the_queue(world: PeopleWorld) -> None:
    first = world.new_person(GPU, is_run=False)
    later = world.new_person(GPU, is_run=False)
    ledger = world.ledger()
    ledger.join_queue(world.node, Waiter(first.name, "ann", 1000, 1))
    answer = FallbackLedger.reserve_count(
        ledger, later.claim, 1, never_stale(world.node), GrantOptions(queues=True)
    )
    assert answer == QueuePosition(2)


def a_book_and_a_store_that_are_lost(world: PeopleWorld) -> None:
    """The node's record names the run, and its command lives."""
    person = asked_until(world, is_run=True)
    World.lose_book(world, with_records=False)
    world.forget_store()
    other = asked_until(world, is_run=True)
    assert not other.holds
    world.check_invariants()
    assert person.holds


def yielding(make: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *given: tuple(replace(one, yields=True) for one in make(*given))


def any_release(events: Sequence[Event], one: Reservation, *, is_own: bool) -> Event | None:
    return next((event for event in events if event.kind == "release"), None)


def without_peer_gone(*given: Any) -> CommitRefusal | None:
    why = grant_steps.commit_refusal(*given)
    return None if why is CommitRefusal.PEER_GONE else why


def without_deadline(*given: Any) -> CommitRefusal | None:
    why = grant_steps.commit_refusal(*given)
    return None if why in (CommitRefusal.LATE, CommitRefusal.CANCELLED) else why


Scenario = Callable[[PeopleWorld], None]
CHECKS: dict[str, tuple[Scenario, Any, str, Any]] = {
    "what the node granted to people is its own": (
        a_store_that_forgets,
        disagreement,
        "lost_own_reservations",
        lambda book, view: {},
    ),
    "who asked still waits": (
        a_client_that_is_killed,
        book_grants,
        "commit_refusal",
        without_peer_gone,
    ),
    "an intent is in the way of others": (
        two_without_the_store,
        book_grants,
        "with_open_intents",
        lambda book, owner="": book,
    ),
    "an intent ends with its deadline": (
        a_handler_that_stops,
        book_grants,
        "commit_refusal",
        without_deadline,
    ),
    "a release in the store is no loss": (
        a_release_by_a_command_without_the_agent,
        reconcile,
        "find_release",
        lambda *given, **named: None,
    ),
    "an undone grant is no release of the next one": (
        a_store_that_loses_what_was_granted_at_the_second_time,
        reconcile,
        "find_release",
        any_release,
    ),
    "who was released stays so": (
        an_old_copy_with_what_was_released,
        book,
        "with_ended",
        lambda *given, **named: {},
    ),
    "what the book has stands": (
        an_old_copy_with_another_owner,
        reconcile,
        "restoring_entries",
        yielding(disagreement.restoring_entries),
    ),
    "a later end is told again": (
        an_old_copy_with_the_former_end,
        disagreement,
        "forgotten_extensions",
        lambda book, view: [],
    ),
    "the book ends what is over": (
        an_end_without_the_store,
        book_transaction,
        "expiry_entries",
        lambda book, now: (),
    ),
    "a release names its grant": (
        a_reaper_that_decides_late,
        book_releases,
        "release_entries",
        lambda book, entry, seen: grant_steps.release_entries(book, entry, None),
    ),
    "the published book has people's reservations": (
        a_command_without_the_agent_after_a_loss_of_the_store,
        PublishedLedger,
        "_held_in_book",
        lambda self, claim: {},
    ),
    "the queue says whose turn it is": (
        one_that_comes_after_another_in_the_queue,
        node_queue,
        "position_of",
        lambda entries, owner: 1,
    ),
    "a lost book is rebuilt from the runs' records": (
        a_book_and_a_store_that_are_lost,
        rebuild,
        "rebuilt_book",
        lambda view, records, jobs, _runs, boot_id: rebuilt_book(view, records, jobs, (), boot_id),
    ),
}


@pytest.mark.parametrize("check", CHECKS)
def test_with_the_check_it_goes_well(world: PeopleWorld, check: str) -> None:
    CHECKS[check][0](world)


@pytest.mark.parametrize("check", CHECKS)
def test_without_the_check_it_goes_wrong(
    world: PeopleWorld, check: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario, holder, name, other = CHECKS[check]
    monkeypatch.setattr(holder, name, other)
    with pytest.raises(AssertionError):
        scenario(world)
