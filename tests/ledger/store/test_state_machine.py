"""Any order of operations and intruders: no GPU has two owners but by shares, nothing is lost."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

import pytest
import redis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from ledger_samples import (
    job,
    manual,
    new_node_name,
    observation,
    patch_record,
    run,
    share,
    store_time_ms,
    uuid,
    wait_for_next_ms,
    waiter,
)
from servers.private_redis import shared_server

from canhazgpu.config.schema import StoreConfig
from canhazgpu.errors import InputError
from canhazgpu.ledger.grant_answers import BlockedGpu, GrantedGpus, QueuePosition, TooFewGpus
from canhazgpu.ledger.port import GrantOptions, Observation
from canhazgpu.ledger.store.connect import Role
from canhazgpu.ledger.store.keys import node_keys
from canhazgpu.ledger.store.ledger import RedisLedger
from canhazgpu.ledger.values import Claim, NodeView

GPUS = 4
DAWDLE_S = 0.06
"""Half of it is more than a process waits for a processor, where others are busy too."""
ALL = range(GPUS)
JOBS = [job(1, attempt) for attempt in (0, 1)]
PEOPLE = [run(1, "ann"), run(2, "bob"), manual(1, user="ann"), manual(2, user="bob")]
SHARES = [share(11), share(12, user="bob"), share(13, "mps")]
CLAIMS = {claim.owner: claim for claim in (*JOBS, *SHARES, *PEOPLE)}
CLAIM = st.sampled_from(list(CLAIMS.values()))
PERSON = st.sampled_from(PEOPLE)
INDEX = st.integers(0, GPUS - 1)
SOME = st.lists(INDEX, min_size=1, max_size=GPUS, unique=True)
CANDIDATES = st.none() | SOME.map(lambda some: frozenset(map(uuid, some)))
TERMS = st.builds(GrantOptions, st.booleans(), st.booleans(), CANDIDATES)
COUNT = st.integers(1, GPUS)
USE = st.sampled_from([None, None, "in_use", "unknown"])
USERS = st.lists(st.sampled_from([claim.owner for claim in SHARES]), max_size=2, unique=True)
HEALTH = st.sampled_from([None, None, "Xid 79", "row remap pending"])


def uuids(indices: object) -> tuple[str, ...]:
    return tuple(uuid(index) for index in indices)  # type: ignore[attr-defined]


@dataclass
class Model:
    """What the ledger should know; GPUs are indices.

    `order` numbers the releases, so that the model knows the least recent without a clock.
    """

    owners: dict[int, list[str]] = field(default_factory=dict)
    order: dict[int, int] = field(default_factory=dict)
    users: dict[int, str] = field(default_factory=dict)
    quarantined: dict[int, str] = field(default_factory=dict)
    queue: list[str] = field(default_factory=list)
    releases: int = 0

    def held(self, owner: str) -> list[int]:
        return sorted(index for index, owners in self.owners.items() if owner in owners)

    def all_owners(self) -> list[str]:
        return sorted({owner for owners in self.owners.values() for owner in owners})

    def grant(self, owner: str, indices: list[int]) -> None:
        for index in indices:
            owners = self.owners.setdefault(index, [])
            if owner not in owners:
                owners.append(owner)

    def release(self, owner: str, indices: list[int]) -> None:
        self.releases += 1
        for index in indices:
            self.owners[index].remove(owner)
            if self.owners[index]:
                continue
            del self.owners[index]
            self.order[index] = self.releases
            self.users[index] = CLAIMS[owner].user

    def leave(self, owner: str) -> None:
        if owner in self.queue:
            self.queue.remove(owner)

    def see(self, seen: Observation) -> None:
        """A scan was stored: what does health make of it?"""
        for index, by in list(self.quarantined.items()):
            gpu = uuid(index)
            if by == "health" and gpu not in seen.unknown and gpu not in seen.unhealthy:
                del self.quarantined[index]
        for index in ALL:
            if uuid(index) in seen.unhealthy:
                self.quarantined.setdefault(index, "health")

    def may_share(self, claim: Claim, index: int) -> bool:
        shares = [CLAIMS[owner].share for owner in self.owners.get(index, [])]
        return claim.share is not None and all(one == claim.share for one in shares)

    def fit(self, claim: Claim, seen: Observation, stale: set[int]) -> list[int]:
        shared = {index for index in ALL if self.may_share(claim, index)}
        covered = {
            uuid(index)
            for index in shared
            if seen.covered.get(uuid(index), {""}) <= {*self.owners.get(index, [])}
        }
        bad = seen.in_use - covered | seen.unknown | set(seen.unhealthy)
        bad |= set(uuids(self.owners.keys() - shared | self.quarantined.keys() | stale))
        return [index for index in ALL if uuid(index) not in bad]

    def chosen(self, claim: Claim, fit: list[int], *, affinity: bool) -> list[int]:
        def place(index: int) -> tuple[int, int, int]:
            released = self.order.get(index, 0)
            if affinity and self.users.get(index) == claim.user:
                return (0, -released, index)
            return (1, released, index)

        return sorted(fit, key=place)

    def position(self, claim: Claim, options: GrantOptions) -> int:
        """The place in the queue, 1 for who need not wait."""
        if not options.queues:
            return 1
        return (self.queue.index(claim.owner) if claim.owner in self.queue else len(self.queue)) + 1


class LedgerMachine(RuleBasedStateMachine):
    """Compares the ledger with a model in which every answer is computed anew.

    A scan taken before is `old`: what was released since then is not to be granted on it.
    """

    @initialize()
    def start(self) -> None:
        self.ledger = RedisLedger(StoreConfig(url=shared_server().url), Role.WRITE)
        self.direct: redis.Redis = shared_server().client()
        self.node = new_node_name()
        self.keys = node_keys(self.node)
        self.model = Model()
        self.rogues: dict[int, str] = {}
        self.users: dict[int, tuple[str, ...]] = {}
        self.sick: dict[int, str] = {}
        self.old: tuple[Observation, float, set[int]] | None = None
        self.times: dict[str, float] = {}
        self.scans = 0

    def view(self) -> NodeView:
        (seen,) = self.ledger.read_nodes([self.node])
        return seen

    # What a scan sees.

    def scan(self) -> Observation:
        wait_for_next_ms()
        in_use, unknown = (
            tuple(index for index, kind in self.rogues.items() if kind == wanted)
            for wanted in ("in_use", "unknown")
        )
        seen = observation(
            self.node,
            GPUS,
            in_use=(*in_use, *self.users),
            unknown=unknown,
            unhealthy=dict(self.sick),
            covered={} if in_use else self.users,
        )
        self.scans += 1
        # Each scan has another text, to tell whether it was stored.
        return replace(seen, scan=replace(seen.scan, started_at=float(self.scans)))

    def stored(self) -> object:
        return self.direct.hmget(self.keys.scan, "at", "data")

    @rule()
    def scan_and_dawdle(self) -> None:
        # Whatever else happens is clearly before or after, also where a command takes its time.
        time.sleep(DAWDLE_S)
        self.old = (self.scan(), time.monotonic() - DAWDLE_S / 2, set())
        time.sleep(DAWDLE_S)

    def aged(self) -> tuple[Observation, set[int]] | None:
        """The old scan, once."""
        if self.old is None:
            return None
        seen, began, stale = self.old
        self.old = None
        return replace(seen, age_s=time.monotonic() - began), stale

    @rule(index=INDEX, kind=USE)
    def somebody_moves_in_or_out(self, index: int, kind: str | None) -> None:
        self.rogues.pop(index, None)
        self.users.pop(index, None)
        if kind:
            self.rogues[index] = kind

    @rule(index=INDEX, owners=st.none() | USERS)
    def jobs_use_what_they_share(self, index: int, owners: list[str] | None) -> None:
        self.users.pop(index, None)
        if owners is not None and index not in self.rogues:
            self.users[index] = tuple(owners)

    @rule(index=INDEX, reason=HEALTH)
    def a_gpu_falls_ill_or_gets_well(self, index: int, reason: str | None) -> None:
        self.sick.pop(index, None)
        if reason:
            self.sick[index] = reason

    @rule()
    def publish(self) -> None:
        seen, before = self.scan(), self.stored()
        self.ledger.publish_scan(seen)
        if self.stored() != before:
            self.model.see(seen)

    # Reserving.

    def reserve_count(
        self, claim: Claim, count: int, options: GrantOptions, seen: Observation, stale: set[int]
    ) -> None:
        model, before = self.model, self.stored()
        answer = self.ledger.reserve_count(claim, count, seen, options)
        if self.stored() != before:
            model.see(seen)
        among = {i for i in ALL if options.candidates is None or uuid(i) in options.candidates}
        held = model.held(claim.owner)
        fit = [index for index in model.fit(claim, seen, stale) if index in among]
        position = model.position(claim, options)
        if held:
            assert answer == GrantedGpus(uuids(held), repeated=True)
            model.leave(claim.owner)
        elif position > 1:
            assert answer == QueuePosition(position)
        elif len(fit) < count:
            assert isinstance(answer, TooFewGpus)
            assert answer.available == len(fit)
            told = (answer.reserved, answer.unreserved, answer.quarantined, answer.stale)
            taken = [index for index in model.owners if not model.may_share(claim, index)]
            assert sum(told) + answer.unknown + answer.available == len(among)
            assert answer.reserved == len(among.intersection(taken))
        else:
            chosen = model.chosen(claim, fit, affinity=options.affinity)[:count]
            assert answer == GrantedGpus(uuids(sorted(chosen)))
            model.grant(claim.owner, chosen)
            model.leave(claim.owner)

    def reserve_given(
        self,
        claim: Claim,
        wanted: list[int],
        options: GrantOptions,
        seen: Observation,
        stale: set[int],
    ) -> None:
        model, before = self.model, self.stored()
        answer = self.ledger.reserve_given(claim, uuids(wanted), seen, options)
        if self.stored() != before:
            model.see(seen)
        held, fit = model.held(claim.owner), model.fit(claim, seen, stale)
        repeated, position = set(wanted) <= set(held), model.position(claim, options)
        in_the_way = [index for index in wanted if index not in held and index not in fit]
        if position > 1 and not repeated:
            assert answer == QueuePosition(position)
        elif in_the_way:
            assert isinstance(answer, BlockedGpu)
            assert answer.gpu == uuid(in_the_way[0])
            told = [one.claim.owner for one in answer.holder.holders] if answer.holder else []
            assert told == model.owners.get(in_the_way[0], [])
        else:
            assert answer == GrantedGpus(uuids(wanted), repeated)
            model.grant(claim.owner, wanted)
            model.leave(claim.owner)

    @rule(claim=CLAIM, count=COUNT, options=TERMS)
    def reserve_some(self, claim: Claim, count: int, options: GrantOptions) -> None:
        self.reserve_count(claim, count, options, self.scan(), set())

    @rule(claim=CLAIM, wanted=SOME, options=TERMS)
    def reserve_these(self, claim: Claim, wanted: list[int], options: GrantOptions) -> None:
        self.reserve_given(claim, wanted, options, self.scan(), set())

    @rule(count=st.integers(1, 2), affinity=st.booleans())
    def the_head_takes_its_turn(self, count: int, affinity: bool) -> None:
        if self.model.queue:
            claim = CLAIMS[self.model.queue[0]]
            self.reserve_count(claim, count, GrantOptions(True, affinity), self.scan(), set())

    @rule(claim=CLAIM, wanted=SOME)
    def use_these_for_a_moment(self, claim: Claim, wanted: list[int]) -> None:
        self.reserve_given(claim, wanted, GrantOptions(), self.scan(), set())
        self.release(claim, None)

    @rule(claim=CLAIM, count=COUNT, options=TERMS, turns=st.integers(2, 3))
    def reserve_and_repeat(
        self, claim: Claim, count: int, options: GrantOptions, turns: int
    ) -> None:
        for _ in range(turns):
            self.reserve_count(claim, count, options, self.scan(), set())

    @rule(claim=CLAIM, count=COUNT, options=TERMS)
    def reserve_some_on_an_old_scan(self, claim: Claim, count: int, options: GrantOptions) -> None:
        if aged := self.aged():
            self.reserve_count(claim, count, options, *aged)

    @rule(claim=CLAIM, wanted=SOME, options=TERMS)
    def reserve_these_on_an_old_scan(
        self, claim: Claim, wanted: list[int], options: GrantOptions
    ) -> None:
        if aged := self.aged():
            self.reserve_given(claim, wanted, options, *aged)

    # What seldom comes about by chance.

    @rule(index=INDEX, claim=CLAIM)
    def a_scan_of_a_sick_gpu_comes_late(self, index: int, claim: Claim) -> None:
        self.sick[index] = "Xid 79"
        self.scan_and_dawdle()
        del self.sick[index]
        self.publish()
        before = self.stored()
        self.reserve_these_on_an_old_scan(claim, [index], GrantOptions())
        assert self.stored() == before

    @rule(index=INDEX)
    def a_sick_gpu_cannot_be_read(self, index: int) -> None:
        self.sick[index] = "Xid 79"
        self.publish()
        del self.sick[index]
        self.rogues[index] = "unknown"
        self.publish()
        del self.rogues[index]
        self.the_ledger_is_the_model()
        self.quarantine(index, lift=False)
        self.publish()

    @rule(claim=CLAIM, wanted=SOME)
    def somebody_leaves_while_another_looks(self, claim: Claim, wanted: list[int]) -> None:
        for owner in self.model.all_owners():
            self.scan_and_dawdle()
            self.release(CLAIMS[owner], None)
            self.reserve_these_on_an_old_scan(claim, wanted, GrantOptions())
            break

    @rule(claim=CLAIM, places=st.permutations(ALL))
    def use_several_and_come_back(self, claim: Claim, places: list[int]) -> None:
        self.release(claim, None)
        for index in places[:2]:
            self.use_these_for_a_moment(claim, [index])
        self.reserve_count(claim, 1, GrantOptions(affinity=True), self.scan(), set())

    @rule(claim=CLAIM, count=COUNT)
    def somebody_tries_to_pass(self, claim: Claim, count: int) -> None:
        for first in PEOPLE[:2]:
            self.join_queue(first)
        self.reserve_count(claim, count, GrantOptions(queues=True), self.scan(), set())

    @rule(wanted=SOME, places=st.permutations(range(len(SHARES))))
    def jobs_share_and_one_leaves(self, wanted: list[int], places: list[int]) -> None:
        for place in places:
            self.reserve_given(SHARES[place], wanted, GrantOptions(), self.scan(), set())
        self.release(SHARES[places[0]], None)

    @rule(claim=CLAIM, wanted=SOME)
    def somebody_comes_after_the_end(self, claim: Claim, wanted: list[int]) -> None:
        self.reserve_given(PEOPLE[-1], wanted, GrantOptions(), self.scan(), set())
        self.expire(PEOPLE[-1])
        self.reserve_given(claim, wanted, GrantOptions(), self.scan(), set())

    # Holding, and giving back.

    @rule()
    def everybody_gives_a_sign_of_life(self) -> None:
        for claim in CLAIMS.values():
            held = self.ledger.renew(self.node, claim.owner, claim.processes)
            assert held == list(uuids(self.model.held(claim.owner)))
        for owner in reversed(self.model.queue):
            self.join_queue(CLAIMS[owner])

    @rule()
    def everybody_extends(self) -> None:
        for claim in CLAIMS.values():
            longer = self.ledger.extend(self.node, claim.owner, 60)
            expected = self.model.held(claim.owner) if claim.duration_s else []
            assert [one.gpu for one in longer] == list(uuids(expected))

    def gone(self, owner: str, indices: list[int]) -> None:
        self.model.release(owner, indices)
        if self.old:
            self.old[2].update(index for index in indices if index not in self.model.owners)

    @rule(only=SOME)
    def somebody_gives_some_back(self, only: list[int]) -> None:
        for owner in self.model.all_owners():
            self.release(CLAIMS[owner], only)

    @rule(claim=CLAIM, only=st.none() | SOME)
    def release(self, claim: Claim, only: list[int] | None) -> None:
        wait_for_next_ms()
        held = self.model.held(claim.owner)
        expected = [index for index in held if only is None or index in only]
        named = [] if only is None else uuids(only)
        released = self.ledger.release(self.node, claim.owner, "end", named)
        assert released == list(uuids(expected))
        self.gone(claim.owner, expected)

    @rule(claim=st.sampled_from([claim for claim in PEOPLE if claim.duration_s]))
    def expire(self, claim: Claim) -> None:
        """The time of a person's reservation is over; nobody has noticed yet."""
        wait_for_next_ms()
        held, now = self.model.held(claim.owner), store_time_ms(self.direct)
        for index in held:
            patch_record(self.direct, self.keys.reservations, uuid(index), expires_ms=now)
        self.gone(claim.owner, held)

    # Waiting.

    @rule(claim=PERSON)
    def join_queue(self, claim: Claim) -> None:
        if claim.owner not in self.model.queue:
            self.model.queue.append(claim.owner)
        position = self.ledger.join_queue(self.node, waiter(claim))
        assert position == self.model.queue.index(claim.owner) + 1

    @rule(claims=st.lists(PERSON, max_size=2))
    def leave_queue(self, claims: list[Claim]) -> None:
        self.ledger.leave_queue(self.node, [claim.owner for claim in claims], "gave up")
        for claim in claims:
            self.model.leave(claim.owner)

    @rule(place=st.integers(0, len(PEOPLE) - 1))
    def somebody_dies_in_the_queue(self, place: int) -> None:
        for owner in self.model.queue[place:][:1]:
            patch_record(self.direct, self.keys.queue, owner, renewed_ms=1)
            self.model.leave(owner)
            self.the_head_takes_its_turn(1, affinity=False)

    # Administration.

    @rule(index=INDEX, lift=st.sampled_from([True, True, False]))
    def quarantine(self, index: int, lift: bool) -> None:
        known = self.model.quarantined.pop(index, None)
        if lift:
            assert self.ledger.unquarantine(self.node, uuid(index), "root") is (known is not None)
        else:
            assert self.ledger.quarantine(self.node, uuid(index), "fan", "root") is (
                known != "root"
            )
            self.model.quarantined[index] = "root"

    @rule()
    def forget(self) -> None:
        if self.model.owners:
            with pytest.raises(InputError):
                self.ledger.forget_node(self.node)
            return
        self.ledger.forget_node(self.node)
        self.model, self.times = Model(), {}
        if self.old:
            self.old[2].clear()

    @rule(flush=st.booleans())
    def crash_between(self, flush: bool) -> None:
        """The process is another one now; perhaps the server has forgotten its scripts."""
        self.ledger = RedisLedger(StoreConfig(url=shared_server().url), Role.WRITE)
        if flush:
            self.direct.script_flush()

    # What always holds.

    @invariant()
    def the_ledger_is_the_model(self) -> None:
        seen, model = self.view(), self.model
        recorded = {
            gpu: [one.claim.owner for one in held.holders]
            for gpu, held in seen.reservations.items()
        }
        assert recorded == {uuid(index): owners for index, owners in model.owners.items()}
        held_back = {gpu: one.by for gpu, one in seen.quarantines.items()}
        assert held_back == {uuid(index): by for index, by in model.quarantined.items()}
        assert [one.owner for one in seen.queue] == model.queue
        for one in seen.all_reservations():
            assert replace(one.claim, processes=()) == replace(
                CLAIMS[one.claim.owner], processes=()
            )

    @invariant()
    def release_times_stay_and_only_grow(self) -> None:
        seen = self.view()
        assert set(seen.released_at) == {uuid(index) for index in self.model.order}
        assert all(seen.released_at[gpu] >= at for gpu, at in self.times.items())
        self.times = dict(seen.released_at)

    def teardown(self) -> None:
        """When all have gone, everything is free, and the history tells of one owner at a time."""
        if not hasattr(self, "ledger"):
            return
        for owner in CLAIMS:
            self.ledger.release(self.node, owner, "end")
        self.ledger.leave_queue(self.node, list(CLAIMS), "end")
        for index in ALL:
            self.ledger.unquarantine(self.node, uuid(index), "root")
        wait_for_next_ms()
        last = self.ledger.reserve_count(
            run(9), GPUS, observation(self.node), GrantOptions(queues=True)
        )
        assert last == GrantedGpus(uuids(ALL))
        holders: dict[str, list[str]] = {}
        for event in self.ledger.history(self.node, 0):
            if event.kind == "grant":
                assert event.claim is not None
                others = holders.setdefault(event.gpu, [])
                assert all(CLAIMS[one].share == event.claim.share for one in others)
                assert event.claim.share or not others
                others.append(event.claim.owner)
            elif event.kind == "release":
                assert event.claim is not None
                holders[event.gpu].remove(event.claim.owner)
        assert holders == {gpu: [run(9).owner] for gpu in uuids(ALL)}
        self.direct.close()


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.pytestmark = pytest.mark.slow
TestLedgerMachine.settings = settings(
    max_examples=80,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate, Phase.shrink],
    database=None,
)
