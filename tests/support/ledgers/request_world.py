"""A node whose processes are steps: hooks, handlers and epilogs that may die at every arrow.

Each worker is a generator over the functions that the handler, the health check and a hook in its
own process call. Between two of its steps anything may happen. The store is a real one, reached
through a gate.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import redis
from ledger_samples import new_node_name, observation
from ledgers.hook_ledger import hook_ledger
from servers.private_redis import shared_server

from canhazgpu.agent import request_state
from canhazgpu.agent.request_state import ClientEvent, ClientState, HandlerEvent, HandlerState
from canhazgpu.config.schema import StoreConfig
from canhazgpu.errors import BookUnknownError, NodeStateError, StoreError
from canhazgpu.gpu.assigned import AssignedGpu
from canhazgpu.ledger.grant_answers import GrantedGpus
from canhazgpu.ledger.journal_entries import GRANT, JournalEntry
from canhazgpu.ledger.local import reconcile
from canhazgpu.ledger.local.book import book_file, book_transaction
from canhazgpu.ledger.local.book.book import is_job_owner
from canhazgpu.ledger.local.book.book_file import BookFile
from canhazgpu.ledger.local.book.grant_rules import grant_given
from canhazgpu.ledger.local.book.intent import Intent
from canhazgpu.ledger.local.book.rebuilt_book import SchedulersJob
from canhazgpu.ledger.local.book.served_boot import ServedBoot
from canhazgpu.ledger.local.book_grants import BookGrants, Committer
from canhazgpu.ledger.local.jobs.job_records import JobRecords
from canhazgpu.ledger.local.outage import StoreOutage
from canhazgpu.ledger.local.reconcile import Reconciler
from canhazgpu.ledger.owner import JobOwner
from canhazgpu.ledger.port import Observation
from canhazgpu.ledger.store.connect import Role
from canhazgpu.ledger.store.ledger import RedisLedger
from canhazgpu.ledger.values import Claim
from canhazgpu.node.process_id import ProcessId

GPUS = 3
INTENT_LIFE_S = 60.0
CLOCKED = (book_file, book_transaction, reconcile)


@dataclass
class Worker:
    """A process that handles one request: the agent's handler, or the hook itself."""

    process: ProcessId
    is_direct: bool
    steps: Iterator[str] = field(default_factory=lambda: iter(()))
    at: str = "begun"


@dataclass
class Request:
    """One JobStart: its attempt, its client, and who works for it."""

    owner: JobOwner
    gpus: tuple[str, ...]
    client: ClientState = ClientState.ASKING
    client_lives: bool = True
    handler: HandlerState = HandlerState.CONNECTED
    workers: list[Worker] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.owner.token


class Gate:
    """The store as the node reaches it; some scripts arrive only later."""

    def __init__(self, ledger: RedisLedger) -> None:
        self._ledger = ledger
        self.mode = "up"
        self.late: list[Callable[[], Any]] = []

    def __getattr__(self, name: str) -> Any:
        operation = getattr(self._ledger, name)

        def through(*given: Any, **named: Any) -> Any:
            if self.mode == "down":
                raise StoreError("down")
            if self.mode == "slow" and name in ("confirm", "record_entries"):
                self.late.append(lambda: operation(*given, **named))
                raise StoreError("no answer yet")
            answer = operation(*given, **named)
            if self.mode == "deaf":
                raise StoreError("the answer is lost")
            return answer

        return through


class World:
    """One node, its jobs as Slurm knows them, and its store."""

    def __init__(self) -> None:
        self.node = new_node_name()
        self.base = Path(tempfile.mkdtemp(prefix="chg-model-"))
        self.directory = self.base / "run"
        self.scheduler_names_gpus = True
        self.direct_store = RedisLedger(StoreConfig(url=shared_server().url), Role.WRITE)
        self.gate = Gate(self.direct_store)
        self.uptime = 100.0
        self.boot = 1
        self.job_number = self.pid = 0
        self.alive: set[ProcessId] = set()
        self.requests: dict[str, Request] = {}
        self.all_requests: dict[str, Request] = {}
        self.locks: dict[str, Worker] = {}
        self.running: dict[str, tuple[str, ...]] = {}
        self.ended: set[str] = set()
        self.committed_by: dict[str, Worker] = {}
        self.reapers: list[tuple[Any, list[str]]] = []
        self.log: list[str] = []
        self.store_lost_data = False
        self._real_uptime = book_transaction.uptime_s
        for module in CLOCKED:
            module.uptime_s = lambda: self.uptime  # type: ignore[attr-defined]

    def close(self) -> None:
        for module in CLOCKED:
            module.uptime_s = self._real_uptime  # type: ignore[attr-defined]
        shutil.rmtree(self.base, ignore_errors=True)

    @property
    def records(self) -> JobRecords:
        return JobRecords(self.directory)

    def book_file(self) -> BookFile:
        return BookFile(
            self.directory,
            self.node,
            str(self.boot),
            self.records,
            self.log.append,
            lambda process: process in self.alive,
            ServedBoot(self.base / "lib", self.directory, str(self.boot)),
        )

    def jobs_here(self, known: Collection[str]) -> list[SchedulersJob]:
        """Slurm's word: it knows the devices, unless canhazgpu picks them."""
        names = self.scheduler_names_gpus
        return [
            SchedulersJob(self.claim(request.owner), request.gpus if names else None)
            for request in self.requests_here()
            if request.name not in known and request.owner.job_id not in self.locks
        ]

    def requests_here(self) -> list[Request]:
        """The jobs that Slurm has here: no two of them have a GPU in common."""
        left = [one for one in self.all_requests.values() if one.name not in self.ended]
        given: set[str] = set()
        here = []
        for request in sorted(left, key=lambda one: one.name not in self.running):
            if given.isdisjoint(request.gpus):
                given.update(request.gpus)
                here.append(request)
        return here

    def lose_book(self, *, with_records: bool) -> None:
        """Lose the book, or all that is in the node's directory."""
        if with_records:
            shutil.rmtree(self.directory, ignore_errors=True)
            # Whoever holds a lock holds that of a file that is gone.
            self.locks.clear()
        else:
            (self.directory / "book.json").unlink(missing_ok=True)

    def is_book_lost(self) -> bool:
        try:
            with self.book_file().open():
                return False
        except BookUnknownError:
            return True

    def reconciler(self) -> Reconciler:
        return Reconciler(
            self.node,
            self.book_file(),
            self.log.append,
            self.is_gone,
            self.jobs_here,
        )

    def is_gone(self, claim: Claim) -> bool:
        return claim.owner not in self.running and claim.owner not in self.requests

    def is_wanted(self, owner: str) -> bool:
        """Whether a reaper leaves to the owner what it holds."""
        return owner in self.running or owner in self.requests

    def holders(self) -> dict[str, set[str]]:
        """Who has which GPUs."""
        return {owner: set(gpus) for owner, gpus in self.running.items()}

    def grants(self, committer: Committer) -> BookGrants:
        return BookGrants(self.node, self.book_file(), self.reconciler(), committer)

    def ledger(self) -> Any:
        outage = StoreOutage(self.directory, 10.0, lambda: self.uptime)
        book = self.book_file()
        return hook_ledger(
            self.node, lambda budget: self.gate, book, outage, self.reconciler(), self.log.append
        )

    def claim(self, owner: JobOwner) -> Claim:
        return Claim(owner.token, "slurm", "ann", 1000, owner.job_id, boot_id=str(self.boot))

    def new_process(self) -> ProcessId:
        self.pid += 1
        process = ProcessId(self.pid, self.boot)
        self.alive.add(process)
        return process

    def new_worker(self, request: Request, *, is_direct: bool) -> Worker:
        worker = Worker(self.new_process(), is_direct)
        self.all_requests[request.name] = request
        worker.steps = self._until_fault(self._job_start(request, worker), worker)
        request.workers.append(worker)
        return worker

    def kill(self, worker: Worker) -> None:
        self.alive.discard(worker.process)
        worker.steps = iter(())
        worker.at = "dead"
        self._release_locks(worker)

    def _release_locks(self, worker: Worker) -> None:
        for job, holder in list(self.locks.items()):
            if holder is worker:
                del self.locks[job]

    def may_act(self, request: Request, worker: Worker) -> bool:
        if worker.is_direct:
            return request.client is ClientState.DIRECT
        return request_state.may_act(request.handler)

    def handler_event(self, request: Request, event: HandlerEvent) -> None:
        request.handler = request_state.next_handler_state(request.handler, event)

    def client_event(self, request: Request, event: ClientEvent) -> None:
        request.client = request_state.next_client_state(request.client, event)
        if request.client is ClientState.DIRECT:
            self.new_worker(request, is_direct=True)

    def has_ended(self, claim: Claim) -> bool:
        record = self.records.find(str(claim.job_id))
        return record is None or record.ended or record.owner.token != claim.owner

    def _until_fault(self, steps: Iterator[str], worker: Worker) -> Iterator[str]:
        """Go on until the node's records cannot be used: the job is sent back then."""
        with suppress(NodeStateError):
            yield from steps
        self._release_locks(worker)

    def _job_start(self, request: Request, worker: Worker) -> Iterator[str]:
        """What handles a JobStart, arrow by arrow."""
        owner = request.owner
        while owner.job_id in self.locks:
            yield "waits for the job's lock"
        self.locks[owner.job_id] = worker
        yield "locked"
        known = self.records.find(owner.job_id)
        if known is not None and known.owner == owner and known.ended:
            return
        self.records.begin(owner, "ann", str(self.boot))
        yield "recorded"
        if not worker.is_direct:
            self.handler_event(request, HandlerEvent.PEER_NAMED)
            self.handler_event(request, HandlerEvent.READY_SENT)
        while not self.may_act(request, worker):
            yield "ready"
        claim = self.claim(owner)
        committer = Committer(
            worker.process,
            INTENT_LIFE_S,
            lambda: self.has_ended(claim),
            lambda: request.client_lives,
        )
        grants = self.grants(committer)
        self._contact_store()
        yield "read"
        seen = never_stale(self.node)
        opened = grants.open(
            claim, lambda book, now: grant_given(book, claim, request.gpus, seen, now)
        )
        yield "opened"
        if not isinstance(opened, Intent):
            return
        try:
            outcome = grants.confirm(self.gate, opened, seen).outcome
            confirmed = True
        except StoreError:
            outcome, confirmed = None, False
        yield "confirmed"
        if outcome is not None:
            return
        yield "looked again"
        # What is committed starts at once: no other arrow lies between.
        if grants.commit(opened, confirmed=confirmed) is None:
            self.overrule(request.gpus, is_alone=not confirmed)
            self._start_job(request, worker)
        yield "committed"
        if not worker.is_direct and request.handler is HandlerState.CONFIRMED:
            self.handler_event(request, HandlerEvent.OUTCOME_DECIDED)

    def overrule(self, gpus: Collection[str], *, is_alone: bool) -> None:
        """The node has granted these GPUs."""

    def _contact_store(self) -> None:
        """What a hook does first, as far as it matters for a book that is lost."""
        if self.is_book_lost():
            with suppress(StoreError):
                self.reconciler().reconcile(self.gate)  # type: ignore[arg-type]

    def _start_job(self, request: Request, worker: Worker) -> None:
        assert request.name not in self.ended, f"{request.name} was granted GPUs after its end"
        assert request.client_lives, f"{request.name} was granted GPUs for a client that is gone"
        if worker.is_direct:
            assert request.client is ClientState.DIRECT
        else:
            acting = (ClientState.COMMITTED, ClientState.ENDING_HANDLER)
            assert request.client in acting, f"granted for a client that is {request.client}"
        assert request.name not in self.committed_by, f"{request.name} was granted GPUs twice"
        self.committed_by[request.name] = worker
        self.running[request.name] = request.gpus
        assigned = [AssignedGpu(place, gpu, place) for place, gpu in enumerate(request.gpus)]
        self.records.complete(request.owner, assigned, constrained=False, export=["uuid"])

    def start_by_former_release(self, request: Request) -> bool:
        """Grant as a hook did that knows no intents, without the store; returns whether it did."""
        owner, claim = request.owner, self.claim(request.owner)
        if self.is_book_lost():
            return False
        self.all_requests[request.name] = request
        self.records.begin(owner, "ann", str(self.boot))
        with self.book_file().open() as transaction:
            own = frozenset(filter(is_job_owner, transaction.book.own_owners))
            book = replace(
                transaction.book,
                intents=(),
                grant_numbers={},
                own_owners=own,
                released_by={},
                ended={},
            )
            transaction.book = book
            seen = never_stale(self.node)
            chosen = grant_given(book, claim, request.gpus, seen, transaction.now)
            if not isinstance(chosen, GrantedGpus):
                return False
            transaction.apply_and_journal(
                JournalEntry(GRANT, transaction.now, owner.token, request.gpus, claim)
            )
        # Its own hook has done the work: nobody asks an agent for it.
        request.client = ClientState.SERVED
        self.running[request.name] = request.gpus
        return True

    def end_job(self, owner: JobOwner) -> None:
        """The epilog: fence the attempt, then release what it holds."""
        self.running.pop(owner.token, None)
        self.ended.add(owner.token)
        self.requests.pop(owner.token, None)
        try:
            self.records.end(owner.job_id, last=True)
        except NodeStateError:
            return
        # The health check releases what could not be.
        with suppress(NodeStateError):
            self.ledger().release(self.node, owner.token, "job ended")

    def check_invariants(self) -> None:
        """No GPU has two holders, and the book has every running job."""
        given = [gpu for gpus in self.holders().values() for gpu in gpus]
        assert len(given) == len(set(given)), self.holders()
        if self.is_book_lost():
            return
        held = self.held_in_book() if self.running else {}
        for owner, gpus in self.running.items():
            assert held.get(owner, set()) == set(gpus)

    def check_rest(self) -> None:
        """When nobody works, book and store have the holders alone, and no intent is open."""
        self.uptime += INTENT_LIFE_S
        for _ in range(2):
            ledger = self.ledger()
            (view,) = ledger.read_nodes([self.node])
            for owner in sorted({one.claim.owner for one in view.all_reservations()}):
                if owner not in self.holders():
                    ledger.release(self.node, owner, "gone")
        with self.book_file().open() as transaction:
            assert transaction.book.intents == ()
            assert transaction.pending.entries == ()
        assert self.held_in_book() == self.holders()
        assert self.held_in_store() == self.holders()

    def reboot(self, *, keeps_directory: bool) -> None:
        """Nothing runs any more; whoever worked is dead already."""
        self.ended |= set(self.requests)
        self.requests.clear()
        self.running.clear()
        self.reapers.clear()
        self.boot += 1
        self.uptime = 50.0
        if not keeps_directory:
            self.lose_book(with_records=True)

    def raw_keys(self, client: redis.Redis) -> list[bytes]:
        keys: list[bytes] = client.keys(f"canhazgpu:{{{self.node}}}:*")
        return keys

    def forget_store(self) -> None:
        with raw() as client:
            for key in self.raw_keys(client):
                client.delete(key)
        self.store_lost_data = True

    def copy_store(self) -> dict[bytes, Any]:
        with raw() as client:
            return {key: client.dump(key) for key in self.raw_keys(client)}

    def restore_store(self, copy: dict[bytes, Any]) -> None:
        self.forget_store()
        with raw() as client:
            for key, dump in copy.items():
                client.restore(key, 0, dump)

    def held_in_store(self) -> dict[str, set[str]]:
        (view,) = self.direct_store.read_nodes([self.node])
        held: dict[str, set[str]] = {}
        for one in view.all_reservations():
            held.setdefault(one.claim.owner, set()).add(one.gpu)
        return held

    def held_in_book(self) -> dict[str, set[str]]:
        held: dict[str, set[str]] = {}
        with self.book_file().open() as transaction:
            for gpu, one in transaction.book.reservations.items():
                held.setdefault(one.claim.owner, set()).add(gpu)
        return held


def never_stale(node: str) -> Observation:
    """A scan from the future: no step may depend on the milliseconds since another one."""
    return observation(node, GPUS, age_s=-1000.0)


def raw() -> redis.Redis:
    return redis.Redis(unix_socket_path=str(shared_server().socket))
