"""Kill, stop, time-out, an epilog and a hook in its own process, at every arrow of a request.

The invariants: no GPU has two jobs; nothing is granted after its attempt has ended, for a client
that gave up, or twice; every intent is settled. `test_request_checks` takes out each check that
they rest on.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from ledgers.people_world import PeopleWorld, Person
from ledgers.request_world import GPUS, INTENT_LIFE_S, Request, Worker

from canhazgpu.agent.request_state import ClientEvent, ClientState, HandlerEvent, HandlerState
from canhazgpu.errors import BookUnknownError
from canhazgpu.ledger.owner import JobOwner

pytestmark = pytest.mark.slow

SOME_GPUS = st.sets(st.sampled_from([f"GPU-{place}" for place in range(GPUS)]), min_size=1)


class RequestMachine(RuleBasedStateMachine):
    """The requests of one node, for jobs and for people."""

    @initialize()
    def start(self) -> None:
        self.world = PeopleWorld()
        self.copy: dict[bytes, Any] | None = None

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.close()

    def a_request(self, data: st.DataObject) -> Request:
        return self.world.requests[data.draw(st.sampled_from(sorted(self.world.requests)))]

    def a_person(self, data: st.DataObject) -> Person:
        return self.world.people[data.draw(st.sampled_from(sorted(self.world.people)))]

    def workers(self) -> list[Worker]:
        asking = (*self.world.requests.values(), *self.world.people.values())
        return [
            worker for one in asking for worker in one.workers if worker.process in self.world.alive
        ]

    @rule(data=st.data(), again=st.booleans())
    def a_job_starts(self, data: st.DataObject, again: bool) -> None:
        """Slurm gives a job GPUs that no running job has, or starts a requeued one again."""
        world = self.world
        taken = {gpu for gpus in world.running.values() for gpu in gpus}
        free = sorted({f"GPU-{place}" for place in range(GPUS)} - taken)
        if not free:
            return
        gpus = data.draw(st.lists(st.sampled_from(free), min_size=1, unique=True))
        world.job_number += 1
        owner = JobOwner("c1", str(world.job_number), 0)
        request = Request(owner, tuple(gpus))
        world.requests[request.name] = request
        if again:
            world.client_event(request, ClientEvent.NO_AGENT)
        else:
            world.new_worker(request, is_direct=False)

    @rule(
        place=st.integers(0, GPUS - 1),
        until=st.sampled_from(["opened", "confirmed", "looked again", "committed", "done"]),
    )
    def a_job_comes_so_far(self, place: int, until: str) -> None:
        """Asked for through the agent, confirmed, and then stopped at this arrow."""
        world = self.world
        if any(f"GPU-{place}" in gpus for gpus in world.running.values()):
            return
        world.job_number += 1
        request = Request(JobOwner("c1", str(world.job_number), 0), (f"GPU-{place}",))
        world.requests[request.name] = request
        worker = world.new_worker(request, is_direct=False)
        while worker.at not in ("ready", "done"):
            worker.at = next(worker.steps, "done")
        world.client_event(request, ClientEvent.CONFIRM_BEGUN)
        world.handler_event(request, HandlerEvent.PEER_CONFIRMED)
        while worker.at not in (until, "done"):
            worker.at = next(worker.steps, "done")

    @precondition(lambda self: self.workers())
    @rule(data=st.data(), count=st.integers(1, 6))
    def a_worker_goes_on(self, data: st.DataObject, count: int) -> None:
        """One that is not chosen for long is as a stopped one."""
        every = self.workers()
        worker = every[data.draw(st.integers(0, len(every) - 1))]
        for _ in range(count):
            worker.at = next(worker.steps, "done")
        if worker.at == "done":
            self.world.kill(worker)

    @precondition(lambda self: self.workers())
    @rule(data=st.data())
    def a_worker_is_killed(self, data: st.DataObject) -> None:
        every = self.workers()
        self.world.kill(every[data.draw(st.integers(0, len(every) - 1))])

    @precondition(lambda self: self.world.requests)
    @rule(data=st.data())
    def a_client_confirms(self, data: st.DataObject) -> None:
        request = self.a_request(data)
        if request.client is ClientState.ASKING and request.handler is HandlerState.READY:
            self.world.client_event(request, ClientEvent.CONFIRM_BEGUN)
            self.world.handler_event(request, HandlerEvent.PEER_CONFIRMED)

    @precondition(lambda self: self.world.requests)
    @rule(data=st.data())
    def a_client_loses_patience(self, data: st.DataObject) -> None:
        request = self.a_request(data)
        if request.client in (ClientState.ASKING, ClientState.COMMITTED):
            was_asking = request.client is ClientState.ASKING
            self.world.client_event(request, ClientEvent.TIME_OUT)
            if was_asking and request.handler in (HandlerState.NAMED, HandlerState.READY):
                self.world.handler_event(request, HandlerEvent.PEER_GONE)

    @precondition(lambda self: self.world.requests)
    @rule(data=st.data())
    def a_client_ends_the_handler(self, data: st.DataObject) -> None:
        request = self.a_request(data)
        if request.client is ClientState.ENDING_HANDLER:
            for worker in request.workers:
                self.world.kill(worker)
            self.world.client_event(request, ClientEvent.HANDLER_DEAD)

    @precondition(lambda self: self.world.requests)
    @rule(data=st.data())
    def a_client_sees_that_the_handler_is_dead(self, data: st.DataObject) -> None:
        request = self.a_request(data)
        handlers = [one for one in request.workers if not one.is_direct]
        if (
            request.client is ClientState.COMMITTED
            and all(one.at == "dead" for one in handlers)
            and request.name not in self.world.committed_by
        ):
            self.world.client_event(request, ClientEvent.HANDLER_DEAD)

    @precondition(lambda self: self.world.requests)
    @rule(data=st.data())
    def a_client_is_killed(self, data: st.DataObject) -> None:
        """Slurm does not start the job then, and its epilog comes."""
        request = self.a_request(data)
        if request.name not in self.world.running:
            request.client_lives = False
            for worker in request.workers:
                if worker.is_direct:
                    self.world.kill(worker)

    @precondition(lambda self: self.world.requests)
    @rule(data=st.data())
    def a_job_ends(self, data: st.DataObject) -> None:
        """Its epilog does not wait for ever for the lock of a worker that is stopped."""
        self.world.end_job(self.a_request(data).owner)

    @rule(gpus=SOME_GPUS, is_run=st.booleans())
    def a_person_asks(self, gpus: set[str], is_run: bool) -> None:
        """Through the agent."""
        self.world.ask(self.world.new_person(tuple(sorted(gpus)), is_run=is_run))

    @rule(gpus=SOME_GPUS, is_run=st.booleans())
    def a_person_has_gpus(self, gpus: set[str], is_run: bool) -> None:
        """Through the agent, without anything in between."""
        worker = self.world.ask(self.world.new_person(tuple(sorted(gpus)), is_run=is_run))
        while worker.at != "done":
            worker.at = next(worker.steps, "done")
        self.world.kill(worker)

    @precondition(lambda self: self.world.people)
    @rule(data=st.data())
    def a_person_asks_again(self, data: st.DataObject) -> None:
        """Under the same token: the agent was killed, say, or its answer was lost."""
        person = self.a_person(data)
        if person.client_lives and person.is_firm:
            self.world.ask(person)

    @precondition(lambda self: self.world.people)
    @rule(data=st.data())
    def a_persons_client_is_killed(self, data: st.DataObject) -> None:
        person = self.a_person(data)
        if not person.holds:
            person.client_lives = False

    @precondition(lambda self: self.world.people)
    @rule(data=st.data(), by=st.sampled_from(["", "root"]))
    def a_person_ends(self, data: st.DataObject, by: str) -> None:
        self.world.end(self.a_person(data), by=by)

    @precondition(lambda self: self.world.people)
    @rule(data=st.data())
    def a_person_extends(self, data: st.DataObject) -> None:
        person = self.a_person(data)
        if person.holds and person.is_firm:
            self.world.extend(person)

    @rule(gpus=SOME_GPUS, is_run=st.booleans())
    def a_person_asks_the_store(self, gpus: set[str], is_run: bool) -> None:
        """No agent runs just now."""
        self.world.ask_directly(self.world.new_person(tuple(sorted(gpus)), is_run=is_run))

    @rule()
    def a_reaper_looks(self) -> None:
        """The health check reads the node, and decides about it later."""
        ledger = self.world.ledger()
        try:
            (view,) = ledger.read_nodes([self.world.node])
        except BookUnknownError:
            return
        gone = [
            one.claim.owner
            for one in view.all_reservations()
            if not self.world.is_wanted(one.claim.owner)
        ]
        self.world.reapers.append((ledger, gone))

    @precondition(lambda self: self.world.reapers)
    @rule()
    def a_reaper_releases(self) -> None:
        ledger, gone = self.world.reapers.pop(0)
        for owner in gone:
            with suppress(BookUnknownError):
                ledger.release(self.world.node, owner, "gone")

    @rule(place=st.integers(0, GPUS - 1))
    def a_hook_of_the_former_release_starts_a_job(self, place: int) -> None:
        """It knows no intents, and writes the book without them."""
        gpu = f"GPU-{place}"
        world = self.world
        if any(gpu in gpus for gpus in world.holders().values()):
            return
        world.job_number += 1
        request = Request(JobOwner("c1", str(world.job_number), 0), (gpu,))
        if world.start_by_former_release(request):
            world.requests[request.name] = request

    @rule(mode=st.sampled_from(["up", "up", "down", "deaf", "slow"]))
    def the_store_is(self, mode: str) -> None:
        self.world.gate.mode = mode

    @precondition(lambda self: self.world.gate.late)
    @rule(data=st.data())
    def a_late_script_arrives(self, data: st.DataObject) -> None:
        late = self.world.gate.late
        late.pop(data.draw(st.integers(0, len(late) - 1)))()

    @rule()
    def the_store_forgets_all(self) -> None:
        self.world.forget_store()

    @rule()
    def the_store_is_copied(self) -> None:
        self.copy = self.world.copy_store()

    @precondition(lambda self: self.copy is not None)
    @rule()
    def the_store_is_its_old_copy(self) -> None:
        """A replica that lagged, or a snapshot."""
        assert self.copy is not None
        self.world.restore_store(self.copy)

    @rule(with_records=st.booleans())
    def the_book_is_lost(self, with_records: bool) -> None:
        self.world.lose_book(with_records=with_records)

    @rule(seconds=st.sampled_from([1.0, INTENT_LIFE_S]))
    def time_passes(self, seconds: float) -> None:
        self.world.uptime += seconds

    @rule(keeps_directory=st.booleans())
    def the_node_reboots(self, keeps_directory: bool) -> None:
        world = self.world
        for worker in self.workers():
            world.kill(worker)
        world.reboot(keeps_directory=keeps_directory)

    @rule()
    def all_comes_to_rest(self) -> None:
        """With its store back, and nobody at work, book and store have exactly the holders."""
        world = self.world
        for worker in self.workers():
            world.kill(worker)
        for owner in [one.owner for one in world.requests.values()]:
            if owner.token not in world.running:
                world.end_job(owner)
        for person in [*world.people.values()]:
            if not person.holds:
                world.end(person)
        world.gate.mode = "up"
        world.check_rest()
        while world.gate.late:
            world.gate.late.pop(0)()
        world.check_rest()

    @invariant()
    def all_invariants_hold(self) -> None:
        if hasattr(self, "world"):
            self.world.check_invariants()


SETTINGS = settings(
    max_examples=80,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate, Phase.shrink],
    database=None,
)
TestRequestMachine = RequestMachine.TestCase
TestRequestMachine.settings = SETTINGS
