"""Any order of operations and intruders: a GPU never has two owners, and no release is lost."""

from __future__ import annotations

import atexit
import time

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from ledger_values import fresh_node, job, observation, pass_time, uuid
from redis_server import PrivateRedis

from canhazgpu.config.schema import StoreConfig
from canhazgpu.ledger.connect import Role
from canhazgpu.ledger.keys import node_keys
from canhazgpu.ledger.port import Observation
from canhazgpu.ledger.redis_ledger import RedisLedger
from canhazgpu.ledger.values import Blocked, Claim, Granted, Short

GPUS = 4
OWNERS = st.builds(job, st.integers(1, 3), st.integers(0, 1))
INDICES = st.integers(0, GPUS - 1)
SOME = st.lists(INDICES, min_size=1, max_size=GPUS, unique=True)

_servers: list[PrivateRedis] = []


def server() -> PrivateRedis:
    """One server for all examples: each has a node of its own."""
    if not _servers:
        _servers.append(PrivateRedis())
        atexit.register(_servers[0].stop)
    return _servers[0]


class LedgerMachine(RuleBasedStateMachine):
    """Compares the ledger with a model in which every answer is computed anew.

    `order` numbers the releases, so that the model knows the least recent without a clock. A scan
    taken before is `old`: what was released since then is not to be granted on it.
    """

    @initialize()
    def start(self) -> None:
        self.ledger = RedisLedger(StoreConfig(url=server().url), Role.WRITE)
        self.node = fresh_node()
        self.owners: dict[int, str] = {}
        self.order: dict[int, int] = {}
        self.releases = 0
        self.rogues: dict[int, str] = {}
        self.quarantined: set[int] = set()
        self.old: tuple[Observation, float, set[int]] | None = None
        self.times: dict[str, float] = {}

    def scan(self) -> Observation:
        pass_time()
        in_use, unknown = (
            tuple(index for index, kind in self.rogues.items() if kind == wanted)
            for wanted in ("in_use", "unknown")
        )
        return observation(self.node, GPUS, in_use=in_use, unknown=unknown)

    def held(self, claim: Claim) -> list[int]:
        return sorted(index for index, owner in self.owners.items() if owner == claim.owner)

    def fit(self, stale: set[int], seen: Observation) -> list[int]:
        bad = {uuid(index) for index in self.owners.keys() | self.quarantined | stale}
        bad |= seen.in_use | seen.unknown
        return [index for index in range(GPUS) if uuid(index) not in bad]

    def reserve_count(self, claim: Claim, count: int, seen: Observation, stale: set[int]) -> None:
        held, fit = self.held(claim), self.fit(stale, seen)
        answer = self.ledger.reserve_count(claim, count, seen)
        if held:
            assert answer == Granted(tuple(map(uuid, held)), repeated=True)
        elif len(fit) < count:
            assert isinstance(answer, Short)
            assert answer.available == len(fit)
            told = (answer.reserved, answer.unreserved, answer.quarantined, answer.stale)
            assert sum(told) + answer.unknown + answer.available == GPUS
            assert answer.reserved == len(self.owners)
        else:
            chosen = sorted(fit, key=lambda index: (self.order.get(index, 0), index))[:count]
            assert answer == Granted(tuple(uuid(index) for index in sorted(chosen)))
            self.owners |= dict.fromkeys(chosen, claim.owner)

    def reserve_given(
        self, claim: Claim, wanted: list[int], seen: Observation, stale: set[int]
    ) -> None:
        held, fit = set(self.held(claim)), self.fit(stale, seen)
        answer = self.ledger.reserve_given(claim, [uuid(index) for index in wanted], seen)
        in_the_way = [index for index in wanted if index not in held and index not in fit]
        if in_the_way:
            assert isinstance(answer, Blocked)
            assert answer.gpu == uuid(in_the_way[0])
            holder = self.owners.get(in_the_way[0])
            assert (answer.holder.claim.owner if answer.holder else None) == holder
        else:
            repeated = set(wanted) <= held
            assert answer == Granted(tuple(uuid(index) for index in wanted), repeated)
            self.owners |= dict.fromkeys(wanted, claim.owner)

    @rule(claim=OWNERS, count=st.integers(1, GPUS))
    def reserve_some(self, claim: Claim, count: int) -> None:
        self.reserve_count(claim, count, self.scan(), set())

    @rule(claim=OWNERS, wanted=SOME)
    def reserve_these(self, claim: Claim, wanted: list[int]) -> None:
        self.reserve_given(claim, wanted, self.scan(), set())

    @rule(claim=OWNERS, count=st.integers(1, GPUS), turns=st.integers(2, 3))
    def reserve_and_repeat(self, claim: Claim, count: int, turns: int) -> None:
        for _ in range(turns):
            self.reserve_count(claim, count, self.scan(), set())

    @rule()
    def scan_and_dawdle(self) -> None:
        seen = self.scan()
        self.old = (seen, time.monotonic(), set())

    def aged(self) -> tuple[Observation, set[int]] | None:
        if self.old is None:
            return None
        seen, began, stale = self.old
        age_s = time.monotonic() - began
        return Observation(seen.scan, age_s, seen.in_use, seen.unknown), stale

    @rule(claim=OWNERS, count=st.integers(1, GPUS))
    def reserve_some_on_an_old_scan(self, claim: Claim, count: int) -> None:
        if aged := self.aged():
            self.reserve_count(claim, count, *aged)

    @rule(claim=OWNERS, wanted=SOME)
    def reserve_these_on_an_old_scan(self, claim: Claim, wanted: list[int]) -> None:
        if aged := self.aged():
            self.reserve_given(claim, wanted, *aged)

    @rule(claim=OWNERS, only=st.none() | SOME)
    def release(self, claim: Claim, only: list[int] | None) -> None:
        pass_time()
        expected = [index for index in self.held(claim) if only is None or index in only]
        named = [] if only is None else [uuid(index) for index in only]
        released = self.ledger.release(self.node, claim.owner, "end", named)
        assert sorted(released) == [uuid(index) for index in expected]
        self.releases += 1
        for index in expected:
            del self.owners[index]
            self.order[index] = self.releases
            if self.old:
                self.old[2].add(index)

    @rule(index=INDICES, kind=st.sampled_from(["in_use", "unknown"]))
    def somebody_moves_in(self, index: int, kind: str) -> None:
        self.rogues[index] = kind

    @rule(index=INDICES)
    def somebody_leaves(self, index: int) -> None:
        self.rogues.pop(index, None)

    @rule(index=INDICES)
    def quarantine(self, index: int) -> None:
        with server().client() as direct:
            key = node_keys(self.node).quarantine
            if index in self.quarantined:
                direct.hdel(key, uuid(index))
            else:
                direct.hset(key, uuid(index), "{}")
        self.quarantined ^= {index}

    @rule(flush=st.booleans())
    def crash_between(self, flush: bool) -> None:
        """The process is another one now; perhaps the server has forgotten its scripts."""
        self.ledger = RedisLedger(StoreConfig(url=server().url), Role.WRITE)
        if flush:
            with server().client() as direct:
                direct.script_flush()

    @invariant()
    def the_ledger_is_the_model(self) -> None:
        (seen,) = self.ledger.look([self.node])
        recorded = {gpu: one.claim.owner for gpu, one in seen.reservations.items()}
        assert recorded == {uuid(index): owner for index, owner in self.owners.items()}

    @invariant()
    def release_times_stay_and_only_grow(self) -> None:
        (seen,) = self.ledger.look([self.node])
        assert set(seen.released_at) == {uuid(index) for index in self.order}
        assert all(seen.released_at[gpu] >= at for gpu, at in self.times.items())
        self.times = dict(seen.released_at)


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(
    max_examples=60,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate, Phase.shrink],
    database=None,
)
