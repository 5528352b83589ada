"""The ledger that the agent opens for people, with real processes; only the GPUs are scripted."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis
from fakes.scripted_ledger import (
    ScriptedProbe,
    ScriptedScan,
    free_gpu,
    scan_observation,
    used_gpu,
    uuid,
)
from ledger_samples import manual, new_node_name, wait_for_next_ms
from polling import poll_until
from servers.private_redis import shared_server

from canhazgpu.allocation.allocator import GpuAllocator, Grant
from canhazgpu.allocation.liveness import LivenessContext
from canhazgpu.allocation.refusal import Refusal, RefusalKind
from canhazgpu.config.schema import Config, NodeConfig, StoreConfig
from canhazgpu.errors import ConfigError, VoidGrantError
from canhazgpu.in_process.people_ledger import people_ledger
from canhazgpu.ledger.local.book_grants import Committer
from canhazgpu.ledger.local.fallback_ledger import FallbackLedger
from canhazgpu.ledger.port import GrantOptions, Observation
from canhazgpu.ledger.values import Claim, Waiter
from canhazgpu.node.identity import boot_id, pid_namespace
from canhazgpu.node.process_id import ProcessId
from canhazgpu.node.processes import identify_process, is_alive, is_stopped, this_process

QUEUES = GrantOptions(queues=True)


class UnhurriedProbe(ScriptedProbe):
    """Its scans take their time: a release before one is seen to be before it."""

    def start(self) -> ScriptedScan:
        wait_for_next_ms()
        return super().start()


class Node:
    """A node with two GPUs, and processes of people on it."""

    def __init__(self, place: Path) -> None:
        self.name = new_node_name()
        self.place = place
        self.told: list[str] = []
        self.config = Config(
            store=StoreConfig(url=shared_server().url),
            node=NodeConfig(
                name=self.name,
                state_dir=str(place / "state"),
                marker_dir=str(place / "marker"),
            ),
        )
        self.free = scan_observation(free_gpu(0), free_gpu(1), node=self.name)
        self.taken = scan_observation(used_gpu(0), free_gpu(1), node=self.name)
        self.sleepers: list[subprocess.Popen[bytes]] = []

    def ledger(self, **committer: Any) -> FallbackLedger:
        return people_ledger(
            self.name,
            self.config,
            {"SLURM_CONF": str(self.place / "slurm.conf")},
            self.told.append,
            Committer(this_process(), **committer),
        )

    def allocator(self, *scans: Observation, **committer: Any) -> GpuAllocator:
        liveness = LivenessContext(boot_id(), pid_namespace(), is_alive, is_stopped)
        probe = UnhurriedProbe(*scans or [self.free])
        return GpuAllocator(self.name, liveness, probe, self.ledger(**committer))

    def process(self) -> ProcessId:
        self.sleepers.append(subprocess.Popen(["sleep", "600"]))
        found = identify_process(self.sleepers[-1].pid)
        assert found is not None
        return found

    def kill(self, process: ProcessId) -> None:
        for one in self.sleepers:
            if one.pid == process.pid:
                one.kill()
                one.wait()

    def run(self, number: int) -> Claim:
        claim = Claim(f"run:{number}", "run", "ann", 1000, boot_id=boot_id())
        return replace(claim, processes=(self.process(),), pid_namespace=pid_namespace())

    def waiter(self, number: int) -> Waiter:
        claim = self.run(number)
        return Waiter(
            claim.owner,
            claim.user,
            claim.uid,
            1,
            boot_id=claim.boot_id,
            processes=claim.processes,
            pid_namespace=claim.pid_namespace,
        )

    def held(self) -> dict[str, str]:
        (view,) = self.ledger().read_nodes([self.name])
        return {gpu: one.claim.owner for gpu, one in view.reservations.items()}

    def forget_store(self) -> None:
        with redis.Redis(unix_socket_path=str(shared_server().socket)) as client:
            for key in client.keys(f"canhazgpu:{{{self.name}}}:*"):
                client.delete(key)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path)
    yield made
    for one in made.sleepers:
        with suppress(ProcessLookupError):
            one.kill()
        one.wait()


def gpus_of(grant: Grant | Refusal) -> list[str]:
    assert isinstance(grant, Grant), grant
    return [gpu.uuid for gpu in grant.gpus]


def test_a_run_is_reaped_when_its_process_has_ended(node: Node) -> None:
    claim = node.run(1)
    assert gpus_of(node.allocator().reserve_count(claim, 2)) == [uuid(0), uuid(1)]
    assert node.allocator().reaped_view().reservations.keys() == {uuid(0), uuid(1)}
    node.kill(claim.processes[0])
    assert node.allocator().reaped_view().reservations == {}
    assert gpus_of(node.allocator().reserve_count(node.run(2), 1)) == [uuid(0)]
    assert node.told == []


def test_who_finds_the_gpus_taken_reaps(node: Node) -> None:
    claim = node.run(1)
    node.allocator().reserve_count(claim, 2)
    refused = node.allocator().reserve_count(node.run(2), 1)
    assert isinstance(refused, Refusal) and refused.kind is RefusalKind.BUSY
    node.kill(claim.processes[0])
    assert gpus_of(node.allocator().reserve_count(node.run(3), 2)) == [uuid(0), uuid(1)]


def test_a_reservation_for_a_time_has_no_process_to_end(node: Node) -> None:
    node.allocator().reserve_count(manual(1), 1)
    assert node.allocator().reaped_view().reservations.keys() == {uuid(0)}
    node.allocator().reserve_count(manual(2, 0.05), 1)
    poll_until(lambda: node.allocator().reaped_view().reservations.keys() == {uuid(0)})


def test_what_a_store_has_lost_comes_back_while_its_process_lives(node: Node) -> None:
    lives, ended = node.run(1), node.run(2)
    node.allocator().reserve_count(lives, 1)
    node.allocator().reserve_count(ended, 1)
    node.kill(ended.processes[0])
    node.forget_store()
    assert node.held() == {uuid(0): lives.owner}
    assert sorted(one.split()[0] for one in node.told) == ["event=dropped", "event=restored"]


def test_nothing_is_granted_to_who_does_not_wait_any_more(node: Node) -> None:
    with pytest.raises(VoidGrantError, match="gone"):
        node.allocator(peer_lives=lambda: False).reserve_count(node.run(1), 1)
    assert node.held() == {}


def test_use_that_the_second_look_finds_undoes_the_grant(node: Node) -> None:
    granted = node.allocator(node.free, node.taken).reserve_count(node.run(1), 1)
    assert gpus_of(granted) == [uuid(1)]
    assert node.held().keys() == {uuid(1)}
    (view,) = node.ledger().read_nodes([node.name])
    assert view.released_at == {}


def test_force_grants_a_gpu_in_use(node: Node) -> None:
    claim = node.run(1)

    def both(readings: Any) -> list[str]:
        return [uuid(0), uuid(1)]

    refused = node.allocator(node.taken).reserve_given(claim, both)
    assert isinstance(refused, Refusal)
    granted = node.allocator(node.taken).reserve_given(claim, both, force=True)
    assert gpus_of(granted) == [uuid(0), uuid(1)]
    assert isinstance(granted, Grant) and granted.in_use == {uuid(0)}
    assert node.held() == dict.fromkeys((uuid(0), uuid(1)), claim.owner)


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_a_waiter_that_takes_no_gpu_is_in_nobodys_way(node: Node, how: str) -> None:
    waiting = node.waiter(1)
    node.ledger().join_queue(node.name, waiting)
    refused = node.allocator().reserve_count(node.run(2), 1, options=QUEUES)
    assert isinstance(refused, Refusal) and refused.kind is RefusalKind.QUEUED
    if how == "killed":
        node.kill(waiting.processes[0])
    else:
        node.sleepers[0].send_signal(signal.SIGSTOP)
        poll_until(lambda: is_stopped(waiting.processes[0]))
    assert gpus_of(node.allocator().reserve_count(node.run(3), 1, options=QUEUES)) == [uuid(0)]
    (view,) = node.ledger().read_nodes([node.name])
    assert view.queue == ()


def test_slurms_files_that_cannot_be_read_are_told(node: Node) -> None:
    (node.place / "slurm.conf").mkdir()
    with pytest.raises(ConfigError):
        node.ledger()
