"""People on the node of `request_world`: through its agent, and directly where none runs."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from ledgers.request_world import INTENT_LIFE_S, Request, Worker, World, never_stale

from canhazgpu.errors import CanhazgpuError, StoreError
from canhazgpu.ledger.grant_answers import GrantedGpus
from canhazgpu.ledger.local.book.book import is_job_owner
from canhazgpu.ledger.local.book.grant_rules import grant_given
from canhazgpu.ledger.local.book.intent import Intent
from canhazgpu.ledger.local.book.published_book import read_published
from canhazgpu.ledger.local.book.served_boot import ServedBoot
from canhazgpu.ledger.local.book_grants import Committer
from canhazgpu.ledger.local.published_ledger import PublishedLedger
from canhazgpu.ledger.local.runs.run_files import RunFiles
from canhazgpu.ledger.local.runs.run_record import RunRecord
from canhazgpu.ledger.values import Claim

DURATION_S = 1e6
"""Of a timed reservation: none ends by itself here."""


@dataclass
class Person:
    """Somebody's claim. A run has a process; a reservation for a time has none.

    `is_firm`: the node itself keeps it, whatever the store does. Others last as long as the store.
    """

    claim: Claim
    gpus: tuple[str, ...]
    client_lives: bool = True
    holds: bool = False
    has_ended: bool = False
    is_firm: bool = True
    told_end: float = 0.0
    workers: list[Worker] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.claim.owner


class PeopleWorld(World):
    """The node, its jobs and its people."""

    def __init__(self) -> None:
        super().__init__()
        self.people: dict[str, Person] = {}

    @property
    def runs(self) -> RunFiles:
        return RunFiles(self.directory)

    def new_person(self, gpus: tuple[str, ...], *, is_run: bool) -> Person:
        self.job_number += 1
        if is_run:
            claim = Claim(f"run:{self.job_number}", "run", "eve", 1002, boot_id=str(self.boot))
            claim = replace(claim, processes=(self.new_process(),))
        else:
            claim = Claim(f"manual:{self.job_number}", "manual", "eve", 1002, duration_s=DURATION_S)
        person = Person(claim, gpus)
        self.people[person.name] = person
        return person

    def ask(self, person: Person) -> Worker:
        """The person's client asks the agent, for the first time or again."""
        worker = Worker(self.new_process(), is_direct=False)
        worker.steps = self._until_fault(self._person_start(person, worker), worker)
        person.workers.append(worker)
        return worker

    def _person_start(self, person: Person, worker: Worker) -> Iterator[str]:
        """What handles a person's request, arrow by arrow."""
        committer = Committer(worker.process, INTENT_LIFE_S, peer_lives=lambda: person.client_lives)
        grants = self.grants(committer)
        self._contact_store()
        yield "read"
        seen = never_stale(self.node)
        opened = grants.open(
            person.claim, lambda book, now: grant_given(book, person.claim, person.gpus, seen, now)
        )
        yield "opened"
        if isinstance(opened, GrantedGpus) and person.client_lives:
            self._has(person)
        if not isinstance(opened, Intent):
            return
        try:
            outcome = grants.confirm(self.gate, opened, seen).outcome  # type: ignore[arg-type]
            confirmed = True
        except StoreError:
            outcome, confirmed = None, False
        yield "confirmed"
        if outcome is not None:
            return
        yield "looked again"
        if person.claim.processes:
            self._write_record(person)
        if grants.commit(opened, confirmed=confirmed) is None:
            self.overrule(person.gpus, is_alone=not confirmed)
            self._has(person)
        yield "committed"

    def _write_record(self, person: Person) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.runs.write(RunRecord(person.claim, "marker", person.gpus, 1002, (), 1.0))

    def _has(self, person: Person) -> None:
        assert not person.has_ended, f"{person.name} was granted GPUs after its end"
        assert person.client_lives, f"{person.name} was granted GPUs for a client that is gone"
        person.holds = True
        person.is_firm = True

    def ask_directly(self, person: Person) -> None:
        """A command on a node without an agent: it asks the store, and heeds what is published."""
        person.is_firm = False
        served = ServedBoot(self.base / "lib", self.directory, str(self.boot))
        ledger = PublishedLedger(
            self.node,
            self.gate,  # type: ignore[arg-type]
            lambda: read_published(self.directory, self.node, str(self.boot), served),
        )
        with suppress(CanhazgpuError):
            answer = ledger.reserve_given(person.claim, person.gpus, never_stale(self.node))
            person.holds = isinstance(answer, GrantedGpus)
            # The node reads it before the store may be away. Else it would not know.
            self.ledger().read_nodes([self.node])
        if not person.holds:
            self.forget(person)

    def overrule(self, gpus: Collection[str], *, is_alone: bool) -> None:
        """What the store has granted in the moment in which the node decides alone, is lost."""
        for person in list(self.people.values()) if is_alone else []:
            if person.holds and not person.is_firm and not set(gpus).isdisjoint(person.gpus):
                self.forget(person)

    def forget(self, person: Person) -> None:
        """It is gone, and so is its process; what it held, a reaper releases."""
        person.holds, person.has_ended = False, True
        person.client_lives = False
        for process in person.claim.processes:
            self.alive.discard(process)
        for worker in person.workers:
            self.kill(worker)
        self.people.pop(person.name, None)

    def end(self, person: Person, *, by: str = "") -> None:
        """The watcher sees that the run has ended; or somebody releases the reservation."""
        self.forget(person)
        with suppress(CanhazgpuError):
            self.ledger().release(self.node, person.name, "end", by=by)
        with suppress(OSError):
            self.runs.remove(person.name)

    def extend(self, person: Person) -> None:
        with suppress(CanhazgpuError):
            for one in self.ledger().extend(self.node, person.name, 1000.0):
                person.told_end = max(person.told_end, one.expires_at or 0.0)

    def is_gone(self, claim: Claim) -> bool:
        if is_job_owner(claim.owner):
            return super().is_gone(claim)
        return bool(claim.processes) and not self.alive.intersection(claim.processes)

    def holders(self) -> dict[str, set[str]]:
        people = {one.name: set(one.gpus) for one in self.people.values() if one.holds}
        return {**super().holders(), **people}

    def is_wanted(self, owner: str) -> bool:
        return super().is_wanted(owner) or owner in self.people

    def depend_on_store(self) -> None:
        """The node does not know any more what it granted: the store does, or nobody."""
        in_store = self.held_in_store()
        for person in list(self.people.values()):
            person.is_firm = False
            if person.holds and in_store.get(person.name) != set(person.gpus):
                self.forget(person)

    def lose_book(self, *, with_records: bool) -> None:
        super().lose_book(with_records=with_records)
        self.depend_on_store()

    def forget_store(self) -> None:
        super().forget_store()
        for person in list(self.people.values()):
            if person.holds and not person.is_firm:
                self.forget(person)

    def start_by_former_release(self, request: Request) -> bool:
        """It writes a book that knows nothing of people."""
        started = super().start_by_former_release(request)
        self.depend_on_store()
        return started

    def reboot(self, *, keeps_directory: bool) -> None:
        for person in list(self.people.values()):
            if person.claim.processes or not person.holds:
                self.forget(person)
        super().reboot(keeps_directory=keeps_directory)

    def check_invariants(self) -> None:
        """No GPU has two holders, and the book has all that the node granted to people."""
        super().check_invariants()
        firm = [one for one in self.people.values() if one.holds and one.is_firm]
        if not firm or self.is_book_lost():
            return
        held: dict[str, Any] = {}
        with self.book_file().open() as transaction:
            for gpu, one in transaction.book.own_reservations().items():
                held.setdefault(one.claim.owner, {})[gpu] = one.expires_at
        for person in firm:
            assert held.get(person.name, {}).keys() == set(person.gpus)
            for end in held[person.name].values():
                assert (end or 0.0) >= person.told_end - 0.01
