"""The same flows over a real ledger; only the GPUs are scripted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from fakes.scripted_ledger import (
    ScriptedProbe,
    ScriptedScan,
    failed_observation,
    free_gpu,
    scan_observation,
    used_gpu,
    uuid,
)
from ledger_samples import new_node_name, wait_for_next_ms
from servers.private_redis import PrivateRedis

from canhazgpu.allocation.allocator import GpuAllocator, Grant
from canhazgpu.allocation.liveness import LivenessContext
from canhazgpu.allocation.refusal import Refusal, RefusalKind
from canhazgpu.config.schema import StoreConfig
from canhazgpu.ledger.owner import JobOwner
from canhazgpu.ledger.port import Observation
from canhazgpu.ledger.store.connect import Role
from canhazgpu.ledger.store.ledger import RedisLedger
from canhazgpu.ledger.values import Claim


@pytest.fixture(scope="module")
def ledger() -> Iterator[RedisLedger]:
    with PrivateRedis() as server:
        yield RedisLedger(StoreConfig(url=server.url, timeout_s=5.0), Role.WRITE)


@pytest.fixture
def node() -> str:
    return new_node_name()


def claim(job_id: int, attempt: int = 0, cluster: str = "c1", boot_id: str = "boot 2") -> Claim:
    token = JobOwner(cluster, str(job_id), attempt).token
    return Claim(token, "slurm", "ann", 1000, str(job_id), boot_id=boot_id)


def gpus_of(grant: Grant | Refusal) -> list[str]:
    assert isinstance(grant, Grant), grant
    return [gpu.uuid for gpu in grant.gpus]


class UnhurriedProbe(ScriptedProbe):
    """Its scans take their time, as real ones do: a release before one is seen to be before it."""

    def start(self) -> ScriptedScan:
        wait_for_next_ms()
        return super().start()


class Place:
    """A node with two GPUs whose scans are scripted one call at a time."""

    def __init__(self, ledger: RedisLedger, node: str) -> None:
        self.ledger = ledger
        self.node = node
        self.free = scan_observation(free_gpu(0), free_gpu(1), node=node)
        self.taken = scan_observation(used_gpu(0), free_gpu(1), node=node)

    def service(self, *scans: Observation, boot_id: str = "boot 2") -> GpuAllocator:
        here = LivenessContext(boot_id, None, lambda process: False)
        return GpuAllocator(self.node, here, UnhurriedProbe(*scans or [self.free]), self.ledger)

    def held(self) -> dict[str, str]:
        (view,) = self.ledger.read_nodes([self.node])
        return {gpu: one.claim.owner for gpu, one in view.reservations.items()}


@pytest.fixture
def place(ledger: RedisLedger, node: str) -> Place:
    return Place(ledger, node)


def test_a_grant_is_repeated_and_released(place: Place) -> None:
    assert gpus_of(place.service().reserve_count(claim(1), 1)) == [uuid(0)]
    again = place.service(place.taken).reserve_count(claim(1), 1)
    assert gpus_of(again) == [uuid(0)]
    assert place.service().release(claim(1).owner, "done") == [uuid(0)]
    assert place.held() == {}


@pytest.mark.parametrize("how", ["count", "given"])
def test_a_scan_older_than_a_release_is_repeated(place: Place, how: str) -> None:
    place.service().reserve_count(claim(1), 2)
    place.service().release(claim(1).owner, "done")
    wait_for_next_ms()
    old = replace(place.free, age_s=60.0)
    one = place.service(old, place.free)
    granted = (
        one.reserve_count(claim(2), 2)
        if how == "count"
        else one.reserve_given(claim(2), lambda gpus: [uuid(1), uuid(0)])
    )
    assert sorted(gpus_of(granted)) == [uuid(0), uuid(1)]
    refusal = place.service(old).release(claim(2).owner, "done")
    assert len(refusal) == 2


def test_scans_that_are_always_older_are_refused(place: Place) -> None:
    place.service().reserve_count(claim(1), 2)
    place.service().release(claim(1).owner, "done")
    refusal = place.service(replace(place.free, age_s=60.0)).reserve_count(claim(2), 2)
    assert refusal == Refusal(f"the GPUs of {place.node} kept changing hands; try again")
    assert place.held() == {}


def test_who_moves_in_between_costs_a_counted_grant_one_gpu(place: Place) -> None:
    granted = place.service(place.free, place.taken).reserve_count(claim(1), 1)
    assert gpus_of(granted) == [uuid(1)]
    assert place.held() == {uuid(1): claim(1).owner}


def test_who_moves_in_between_refuses_a_given_grant(place: Place) -> None:
    one = place.service(place.free, place.taken)
    refusal = one.reserve_given(claim(1), lambda gpus: [uuid(0)])
    assert refusal == Refusal(
        f"GPU 0 (GPU-0) on {place.node} is in use by mallory WITHOUT RESERVATION:"
        " 5000MB used by PID 77 (python3)"
    )
    assert place.held() == {}


def test_a_second_look_that_fails_leaves_nothing_reserved(place: Place) -> None:
    refusal = place.service(
        place.free, failed_observation("driver gone", place.node)
    ).reserve_count(claim(1), 2)
    assert refusal == Refusal(f"{place.node}: driver gone", kind=RefusalKind.FAULT)
    assert place.held() == {}


def test_the_holder_in_the_way_is_named(place: Place) -> None:
    place.service().reserve_count(claim(1), 1)
    refusal = place.service().reserve_given(claim(2), lambda gpus: [uuid(0)])
    assert refusal == Refusal(f"GPU 0 (GPU-0) on {place.node} is reserved by ann (slurm job 1)")


def test_too_few_gpus_and_an_intruder(place: Place) -> None:
    refusal = place.service(place.taken).reserve_count(claim(1), 2)
    assert isinstance(refusal, Refusal)
    assert refusal.text == (
        "Not enough GPUs available. Requested: 2, Available: 1 (1 GPUs in use without"
        " reservation - run 'canhazgpu status' for details);"
        f" GPU 0 (GPU-0) on {place.node} is in use by mallory WITHOUT RESERVATION:"
        " 5000MB used by PID 77 (python3)"
    )


def test_what_an_earlier_boot_holds_makes_room(place: Place) -> None:
    place.service(boot_id="boot 1").reserve_count(claim(1, boot_id="boot 1"), 2)
    wait_for_next_ms()
    assert gpus_of(place.service().reserve_count(claim(2), 2)) == [uuid(0), uuid(1)]
    assert set(place.held().values()) == {claim(2).owner}


def test_a_job_releases_its_own_attempts_only(place: Place) -> None:
    six = scan_observation(*map(free_gpu, range(6)), node=place.node)
    mine = [claim(1, 0), claim(1, 1)]
    others = [claim(1, 2), claim(11, 0), claim(1, 0, "c1:1"), claim(1, 0, "c2")]
    for one in (*mine, *others):
        place.service(six).reserve_count(one, 1)
    assert len(place.service().release_job(JobOwner("c1", "1", 1), "job ended")) == 2
    assert set(place.held().values()) == {one.owner for one in others}
