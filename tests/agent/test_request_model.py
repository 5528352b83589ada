"""Kill, stop, time-out, an epilog and a hook in its own process, at every arrow of a request.

The invariants: no GPU has two jobs; nothing is granted after its attempt has ended, for a client
that gave up, or twice; every intent is settled. Each check that they rest on is taken out once, and
then the machine has to find it.
"""

from __future__ import annotations

from collections.abc import Callable
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
    run_state_machine_as_test,
)

from request_world import GPUS, INTENT_LIFE_S, Request, Worker, World
from canhazgpu.agent import request_state
from canhazgpu.agent.request_state import ClientEvent, ClientState, HandlerEvent, HandlerState
from canhazgpu.ledger.local import book_file, book_grants, fallback_ledger, grant_steps
from canhazgpu.ledger.store import session
from canhazgpu.ledger.values import CommitRefusal, JobOwner

pytestmark = pytest.mark.slow


class RequestMachine(RuleBasedStateMachine):
    """The requests of one node."""

    @initialize()
    def start(self) -> None:
        self.world = World()
        self.copy: dict[bytes, Any] | None = None

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.close()

    def a_request(self, data: st.DataObject) -> Request:
        return self.world.requests[data.draw(st.sampled_from(sorted(self.world.requests)))]

    def workers(self) -> list[tuple[Request, Worker]]:
        return [
            (request, worker)
            for request in self.world.requests.values()
            for worker in request.workers
            if worker.process in self.world.alive
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

    @precondition(lambda self: self.workers())
    @rule(data=st.data(), count=st.integers(1, 6))
    def a_worker_goes_on(self, data: st.DataObject, count: int) -> None:
        """One that is not chosen for long is as a stopped one."""
        every = self.workers()
        _, worker = every[data.draw(st.integers(0, len(every) - 1))]
        for _ in range(count):
            worker.at = next(worker.steps, "done")
        if worker.at == "done":
            self.world.kill(worker)

    @precondition(lambda self: self.workers())
    @rule(data=st.data())
    def a_worker_is_killed(self, data: st.DataObject) -> None:
        every = self.workers()
        self.world.kill(every[data.draw(st.integers(0, len(every) - 1))][1])

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
        if request.client is ClientState.COMMITTED and all(one.at == "dead" for one in handlers):
            if request.name not in self.world.committed_by:
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

    @rule()
    def a_reaper_looks(self) -> None:
        """The health check reads the node, and decides about it later."""
        ledger = self.world.ledger()
        (view,) = ledger.read_nodes([self.world.node])
        gone = [
            one.claim.owner
            for one in view.all_reservations()
            if one.claim.owner not in self.world.running
            and one.claim.owner not in self.world.requests
        ]
        self.world.reapers.append((ledger, gone))

    @precondition(lambda self: self.world.reapers)
    @rule()
    def a_reaper_releases(self) -> None:
        ledger, gone = self.world.reapers.pop(0)
        for owner in gone:
            ledger.release(self.world.node, owner, "gone")

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

    @rule(seconds=st.sampled_from([1.0, INTENT_LIFE_S]))
    def time_passes(self, seconds: float) -> None:
        self.world.uptime += seconds

    @rule(keeps_directory=st.booleans())
    def the_node_reboots(self, keeps_directory: bool) -> None:
        world = self.world
        for _, worker in self.workers():
            world.kill(worker)
        world.ended |= set(world.requests)
        world.requests.clear()
        world.running.clear()
        world.reapers.clear()
        world.boot += 1
        world.uptime = 50.0
        if not keeps_directory:
            for one in sorted(world.directory.rglob("*"), reverse=True):
                one.rmdir() if one.is_dir() else one.unlink()

    @rule()
    def all_comes_to_rest(self) -> None:
        """With its store back, and nobody at work, book and store have exactly the running jobs."""
        world = self.world
        for _, worker in self.workers():
            if worker.at != "done":
                world.kill(worker)
        for owner in [one.owner for one in world.requests.values()]:
            if owner.token not in world.running:
                world.end_job(owner)
        world.gate.mode = "up"
        self.check_rest()
        while world.gate.late:
            world.gate.late.pop(0)()
        self.check_rest()

    def check_rest(self) -> None:
        world = self.world
        world.uptime += INTENT_LIFE_S
        for _ in range(2):
            ledger = world.ledger()
            (view,) = ledger.read_nodes([world.node])
            for owner in sorted({one.claim.owner for one in view.all_reservations()}):
                if owner not in world.running:
                    ledger.release(world.node, owner, "gone")
        with world.book_file().open() as transaction:
            assert transaction.book.intents == ()
            assert transaction.pending.entries == ()
        running = {owner: set(gpus) for owner, gpus in world.running.items()}
        assert world.held_in_book() == running
        assert world.held_in_store() == running

    @invariant()
    def no_gpu_has_two_jobs(self) -> None:
        if hasattr(self, "world"):
            given = [gpu for gpus in self.world.running.values() for gpu in gpus]
            assert len(given) == len(set(given)), self.world.running

    @invariant()
    def the_book_has_every_running_job(self) -> None:
        if hasattr(self, "world") and self.world.running:
            held = self.world.held_in_book()
            for owner, gpus in self.world.running.items():
                assert held.get(owner, set()) == set(gpus)


SETTINGS = settings(
    max_examples=150,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate, Phase.shrink],
    database=None,
)
TestRequestMachine = RequestMachine.TestCase
TestRequestMachine.settings = SETTINGS


def refusal_without(check: Any) -> Callable[..., Any]:
    """Return `commit_refusal` as it would be without one of its checks."""
    real = grant_steps.commit_refusal

    def commit_refusal(*given: Any) -> Any:
        refusal = real(*given)
        return None if refusal is check else refusal

    return commit_refusal


def script_without(name: str, text: str, other: str) -> Callable[[str], str]:
    """Return `script_text` with a part of one script replaced."""
    real = session.script_text

    def script_text(script: str) -> str:
        whole = real(script)
        if script != name:
            return whole
        assert text in whole
        return whole.replace(text, other)

    return script_text


def never_over(book: Any, uptime_s: float, is_alive: Any) -> tuple[()]:
    return ()


TAKEN_OUT: dict[str, tuple[Any, str, Callable[[], Any]]] = {
    "the book holds this very intent": (
        book_grants,
        "commit_refusal",
        lambda: refusal_without(CommitRefusal.CANCELLED),
    ),
    "the attempt is not fenced": (
        book_grants,
        "commit_refusal",
        lambda: refusal_without(CommitRefusal.FENCED),
    ),
    "the peer lives": (
        book_grants,
        "commit_refusal",
        lambda: refusal_without(CommitRefusal.PEER_GONE),
    ),
    "intents end": (book_file, "intents_over", lambda: never_over),
    "an intent is in the way of others": (
        book_grants,
        "with_open_intents",
        lambda: lambda book, owner="": book,
    ),
    "a release cancels the owner's intent": (
        fallback_ledger,
        "release_entries",
        lambda: lambda book, entry, seen: (entry,),
    ),
    "the handler begins when the client confirmed": (
        request_state,
        "may_act",
        lambda: lambda state: state in (HandlerState.READY, HandlerState.CONFIRMED),
    ),
    "the client acts when the handler is dead": (
        request_state,
        "_CLIENT",
        lambda: {
            **request_state._CLIENT,
            (ClientState.COMMITTED, ClientEvent.TIME_OUT): ClientState.DIRECT,
        },
    ),
    "an undone number stays refused": (
        session,
        "script_text",
        lambda: script_without("confirm", "if before == 'over' then", "if false then"),
    ),
}


@pytest.mark.parametrize("check", TAKEN_OUT)
def test_without_a_check_the_machine_finds_a_fault(
    check: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, name, make = TAKEN_OUT[check]
    monkeypatch.setattr(module, name, make())
    seeded = settings(
        SETTINGS, max_examples=1000, phases=[Phase.generate], report_multiple_bugs=False
    )
    with pytest.raises(AssertionError):
        run_state_machine_as_test(RequestMachine, settings=seeded)
