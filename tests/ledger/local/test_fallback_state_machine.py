"""Any order of hooks, deaths of hooks, and states of the store: no GPU has two jobs, none is lost.

Some jobs share GPUs.

Each rule is one process of the node with a ledger of its own; all share the node's directory and
one real store. A process may be killed around whatever it asks the store, and whatever it writes.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from ledger_samples import new_node_name, observation, share, wait_for_next_ms
from ledgers.hook_ledger import CommittingLedger, hook_ledger
from servers.private_redis import shared_server

from canhazgpu.config.schema import StoreConfig
from canhazgpu.errors import StoreError
from canhazgpu.ledger.grant_answers import BlockedGpu, GrantedGpus
from canhazgpu.ledger.local.book import book_file as book_module
from canhazgpu.ledger.local.book import journal as journal_module
from canhazgpu.ledger.local.book.book_file import BookFile
from canhazgpu.ledger.local.book.journal import Journal
from canhazgpu.ledger.local.jobs.job_records import JobRecords
from canhazgpu.ledger.local.outage import StoreOutage
from canhazgpu.ledger.local.reconcile import Reconciler
from canhazgpu.ledger.owner import JobOwner
from canhazgpu.ledger.store.connect import Role
from canhazgpu.ledger.store.ledger import RedisLedger
from canhazgpu.ledger.values import Claim
from canhazgpu.ledger.wait_budget import WaitBudget

GPUS = 4
LIFE_S = 10.0
STEPS = st.none() | st.integers(0, 12)
"""The step before which the process is killed, if it comes so far."""


class KilledError(BaseException):
    """As SIGKILL: nobody catches it."""


class Fuse:
    """Kills the process at its n-th step."""

    def __init__(self) -> None:
        self.left: int | None = None

    def step(self) -> None:
        if self.left is None:
            return
        if self.left == 0:
            self.left = None
            raise KilledError
        self.left -= 1

    def around(self, work: Callable[..., Any]) -> Callable[..., Any]:
        def stepped(*given: Any, **named: Any) -> Any:
            self.step()
            done = work(*given, **named)
            self.step()
            return done

        return stepped


class Gate:
    """The store as the node reaches it: well, not at all, or so that each answer is lost."""

    def __init__(self, ledger: RedisLedger, fuse: Fuse) -> None:
        self._ledger = ledger
        self._fuse = fuse
        self.state = "up"
        self.forget: Callable[[], None] | None = None
        self.forgets_at: int | None = None

    def open(self, budget: WaitBudget) -> Any:
        return self

    def _perhaps_forget(self) -> None:
        if self.forgets_at is not None:
            self.forgets_at -= 1
            if self.forgets_at < 0 and self.forget is not None:
                self.forgets_at = None
                self.forget()

    def __getattr__(self, name: str) -> Any:
        operation = getattr(self._ledger, name)

        def through(*given: Any, **named: Any) -> Any:
            self._fuse.step()
            if self.state == "down":
                raise StoreError("down")
            self._perhaps_forget()
            answer = operation(*given, **named)
            if self.state == "deaf":
                raise StoreError("no answer")
            self._fuse.step()
            return answer

        return through


class FallbackMachine(RuleBasedStateMachine):
    """`running` is what Slurm knows: the jobs whose prolog succeeded, with what each was given.

    `starting` are those in their prolog, or whose prolog died and whose epilog is to come.
    """

    @initialize()
    def start(self) -> None:
        self.node = new_node_name()
        self.place = Path(tempfile.mkdtemp(prefix="chg-machine-"))
        self.fuse = Fuse()
        self.direct = RedisLedger(StoreConfig(url=shared_server().url), Role.WRITE)
        self.gate = Gate(self.direct, self.fuse)
        self.gate.forget = self.the_store_forgets_all
        self.uptime = 100.0
        self.boot = 1
        self.number = 0
        self.running: dict[str, tuple[str, ...]] = {}
        self.starting: set[str] = set()
        self.people: dict[str, tuple[str, ...]] = {}
        self.sharing: set[str] = set()
        self.old: dict[bytes, bytes] | None = None
        self.told: list[str] = []

    def teardown(self) -> None:
        if hasattr(self, "place"):
            shutil.rmtree(self.place, ignore_errors=True)

    def claim(self, owner: str) -> Claim:
        job_id = owner.split(":")[2]
        part = share(job_id).share if owner in self.sharing else None
        return Claim(owner, "slurm", "ann", 1000, job_id, boot_id=str(self.boot), share=part)

    def is_gone(self, claim: Claim) -> bool:
        return claim.owner not in self.running and claim.owner not in self.starting

    @contextmanager
    def process(self, dies_at: int | None = None) -> Iterator[CommittingLedger]:
        """A process of the node, from its start to its end, however that comes."""
        book = BookFile(
            self.place, self.node, str(self.boot), JobRecords(self.place), self.told.append
        )
        outage = StoreOutage(self.place, LIFE_S, lambda: self.uptime)
        reconciler = Reconciler(self.node, book, self.told.append, self.is_gone)
        self.fuse.left = dies_at
        written = (book_module.write_atomically, journal_module.write_atomically, Journal.append)
        book_module.write_atomically = self.fuse.around(written[0])
        journal_module.write_atomically = self.fuse.around(written[1])
        Journal.append = self.fuse.around(written[2])  # type: ignore[method-assign]
        try:
            yield hook_ledger(self.node, self.gate.open, book, outage, reconciler, self.told.append)
        finally:
            book_module.write_atomically, journal_module.write_atomically = written[:2]
            Journal.append = written[2]  # type: ignore[method-assign]
            self.fuse.left = self.gate.forgets_at = None
            outage._release_trial_lock()
            self.uptime += 0.01

    def seen(self) -> Any:
        wait_for_next_ms()
        return observation(self.node, GPUS)

    @rule(count=st.integers(1, GPUS), dies_at=STEPS, forgets_at=st.none() | st.integers(0, 3))
    def prolog(self, count: int, dies_at: int | None, forgets_at: int | None) -> None:
        """A job starts; perhaps the store forgets all between two of its questions."""
        self.gate.forgets_at = forgets_at
        self.number += 1
        owner = JobOwner("c1", str(self.number), 0).token
        self.starting.add(owner)
        try:
            with self.process(dies_at) as ledger:
                answer = ledger.reserve_count(self.claim(owner), count, self.seen())
                if isinstance(answer, GrantedGpus):
                    self.starting.remove(owner)
                    self.running[owner] = answer.gpus
        except KilledError:
            # Slurm does not start the job; its epilog comes, or does not.
            return

    @rule(data=st.data(), dies_at=STEPS, shares=st.booleans())
    def prolog_of_given_gpus(self, data: st.DataObject, dies_at: int | None, shares: bool) -> None:
        """Slurm's choice of devices: never one that a running job has, unless both share it."""
        taken = {
            gpu
            for owner, gpus in self.running.items()
            for gpu in gpus
            if not shares or owner not in self.sharing
        }
        free = sorted({f"GPU-{place}" for place in range(GPUS)} - taken)
        if not free:
            return
        wanted = data.draw(st.lists(st.sampled_from(free), min_size=1, unique=True))
        self.number += 1
        owner = JobOwner("c1", str(self.number), 0).token
        self.starting.add(owner)
        if shares:
            self.sharing.add(owner)
        try:
            with self.process(dies_at) as ledger:
                answer = ledger.reserve_given(self.claim(owner), wanted, self.seen())
                if isinstance(answer, GrantedGpus):
                    assert set(answer.gpus) == set(wanted)
                    self.starting.remove(owner)
                    self.running[owner] = answer.gpus
                else:
                    assert isinstance(answer, BlockedGpu)
        except KilledError:
            return

    @precondition(lambda self: self.running or self.starting)
    @rule(data=st.data(), dies_at=STEPS, lost=st.booleans())
    def job_ends(self, data: st.DataObject, dies_at: int | None, lost: bool) -> None:
        """The epilog of a job; sometimes there is none, and sometimes it is killed."""
        owner = data.draw(st.sampled_from(sorted([*self.running, *self.starting])))
        self.running.pop(owner, None)
        self.starting.discard(owner)
        if lost:
            return
        try:
            with self.process(dies_at) as ledger:
                ledger.release(self.node, owner, "job ended")
        except KilledError:
            return

    @rule(dies_at=STEPS)
    def health_check(self, dies_at: int | None) -> None:
        try:
            self.check(dies_at)
        except KilledError:
            return

    def check(self, dies_at: int | None = None) -> str:
        """Do what the health check does to reservations; returns why it was without the store."""
        with self.process(dies_at) as ledger:
            (view,) = ledger.read_nodes([self.node])
            for owner in sorted({one.claim.owner for one in view.all_reservations()}):
                if owner.startswith("job:") and self.is_gone(Claim(owner, "slurm", "ann")):
                    ledger.release(self.node, owner, "gone")
            ledger.publish_scan(self.seen())
            return ledger.without_store

    @rule(state=st.sampled_from(["up", "up", "down", "deaf"]))
    def the_store_is(self, state: str) -> None:
        self.gate.state = state

    @rule()
    def time_passes(self) -> None:
        self.uptime += LIFE_S + 1

    def the_store_forgets_all(self) -> None:
        with raw() as client:
            for key in client.keys(f"canhazgpu:{{{self.node}}}:*"):
                client.delete(key)
        self.people.clear()

    @rule(somebody_is_there=st.booleans())
    def the_store_loses_its_memory(self, somebody_is_there: bool) -> None:
        self.the_store_forgets_all()
        if somebody_is_there and self.gate.state == "up":
            self.somebody_runs()

    @rule()
    def the_store_is_copied(self) -> None:
        with raw() as client:
            keys = client.keys(f"canhazgpu:{{{self.node}}}:*")
            self.old = {key: client.dump(key) for key in keys}

    @precondition(lambda self: self.old is not None)
    @rule()
    def the_store_is_its_old_copy(self) -> None:
        assert self.old is not None
        self.the_store_forgets_all()
        with raw() as client:
            for key, dump in self.old.items():
                client.restore(key, 0, dump)

    @precondition(lambda self: self.gate.state == "up")
    @rule()
    def somebody_runs(self) -> None:
        self.number += 1
        claim = Claim(f"run:{self.number}", "run", "eve", 1002)
        answer = self.direct.reserve_count(claim, 1, self.seen())
        if isinstance(answer, GrantedGpus):
            self.people[claim.owner] = answer.gpus

    @precondition(lambda self: self.people)
    @rule(data=st.data())
    def somebodys_run_ends(self, data: st.DataObject) -> None:
        owner = data.draw(st.sampled_from(sorted(self.people)))
        del self.people[owner]
        self.direct.release(self.node, owner, "run ended")

    @rule(keeps_directory=st.booleans())
    def reboot(self, keeps_directory: bool) -> None:
        self.running.clear()
        self.starting.clear()
        self.boot += 1
        self.uptime = 50.0
        if not keeps_directory:
            shutil.rmtree(self.place)
            self.place.mkdir()

    @rule()
    def all_is_well_again(self) -> None:
        """With its store back, one health check leaves exactly the running jobs."""
        self.gate.state = "up"
        self.uptime += LIFE_S + 1
        if self.check():
            # An earlier boot noted the outage at what is the uptime again by chance.
            self.uptime += LIFE_S + 1
            assert self.check() == ""
        # What the node heard of people without the store is the store's to know now.
        (view,) = self.direct.read_nodes([self.node])
        held: dict[str, set[str]] = {}
        for one in view.all_reservations():
            if one.claim.owner.startswith("job:"):
                held.setdefault(one.claim.owner, set()).add(one.gpu)
        waiting = {owner: gpus for owner, gpus in held.items() if owner in self.starting}
        assert {owner: gpus for owner, gpus in held.items() if owner not in waiting} == {
            owner: set(gpus) for owner, gpus in self.running.items()
        }
        assert (
            len((self.place / "journal").read_text().splitlines()) <= 1
            if (self.place / "journal").exists()
            else True
        )

    @invariant()
    def no_gpu_has_two_jobs_unless_they_share_it(self) -> None:
        alone = self.running.keys() - self.sharing
        given = [gpu for owner in alone for gpu in self.running[owner]]
        shared = {gpu for owner in self.running.keys() - alone for gpu in self.running[owner]}
        assert len(given) == len(set(given)), self.running
        assert shared.isdisjoint(given), self.running

    @invariant()
    def the_book_knows_every_running_job(self) -> None:
        saved = self.place / "book.json"
        if not self.running or not saved.exists():
            return
        book = BookFile(self.place, self.node, str(self.boot), JobRecords(self.place), print)
        with book.open() as transaction:
            jobs = {
                gpu: [one.claim.owner for one in held.holders]
                for gpu, held in transaction.book.own_reservations().items()
            }
        for owner, gpus in self.running.items():
            assert all(owner in jobs.get(gpu, []) for gpu in gpus), (jobs, self.running)


@contextmanager
def raw() -> Iterator[redis.Redis]:
    with redis.Redis(unix_socket_path=str(shared_server().socket)) as client:
        yield client


TestFallbackMachine = FallbackMachine.TestCase
TestFallbackMachine.pytestmark = pytest.mark.slow
TestFallbackMachine.settings = settings(
    max_examples=100,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate, Phase.shrink],
    database=None,
)
