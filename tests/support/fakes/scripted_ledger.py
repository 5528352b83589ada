"""A probe and a ledger that answer by script, for the service that drives them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from canhazgpu.gpu.scan import GpuProcess, GpuReading, Scan
from canhazgpu.gpu.usage import UsagePolicy
from canhazgpu.ledger.co_holders import combine
from canhazgpu.ledger.grant_answers import (
    BlockedGpu,
    CommitRefusal,
    GrantedGpus,
    QueuePosition,
    TooFewGpus,
)
from canhazgpu.ledger.port import JOB_GRANT_OPTIONS, GrantOptions, Observation
from canhazgpu.ledger.values import Claim, NodeView, Quarantine, Reservation, Waiter
from canhazgpu.probe.node_probe import judge_scan

NODE = "n1"
THRESHOLD_MB = 1024


def uuid(index: int) -> str:
    return f"GPU-{index}"


def free_gpu(index: int) -> GpuReading:
    return GpuReading(index, uuid(index), index, "H100", 0, 80000)


def used_gpu(index: int, user: str = "mallory", memory_mb: int = 5000, pid: int = 77) -> GpuReading:
    process = GpuProcess(pid, 1002, user, "python3", memory_mb)
    return GpuReading(index, uuid(index), index, "H100", memory_mb, 80000, (process,))


def scan_observation(*readings: GpuReading, age_s: float = 0.0, node: str = NODE) -> Observation:
    """What a scan of these GPUs amounts to."""
    return judge_scan(Scan(node, 0.0, 0.0, readings), UsagePolicy(THRESHOLD_MB), age_s)


def failed_observation(fault: str, node: str = NODE) -> Observation:
    return Observation(Scan(node, 0.0, 0.0, (), fault), 0.0)


def reservation(index: int, owner: str, boot_id: str | None = "this boot") -> Reservation:
    claim = Claim(owner, "slurm", "ann", 1000, owner.split(":")[-2], boot_id=boot_id)
    return Reservation(uuid(index), claim, 1.0)


@dataclass
class ScriptedScan:
    """One scan under way; counts how often it was looked at."""

    found: Observation
    observed: int = 0

    def observe(self) -> Observation:
        self.observed += 1
        return self.found


class ScriptedProbe:
    """Gives these observations in turn, the last one again and again."""

    def __init__(self, *observations: Observation) -> None:
        self._observations = list(observations)
        self.scans: list[ScriptedScan] = []

    def start(self) -> ScriptedScan:
        place = min(len(self.scans), len(self._observations) - 1)
        assert place >= 0, "no scan was expected"
        self.scans.append(ScriptedScan(self._observations[place]))
        return self.scans[-1]


Answer = GrantedGpus | TooFewGpus | BlockedGpu | QueuePosition


@dataclass
class ScriptedLedger:
    """Gives these answers in turn, the last one again and again; `held` is what `look` shows."""

    answers: list[Answer]
    held: list[Reservation] = field(default_factory=list)
    reserve_calls: list[tuple[Observation, object]] = field(default_factory=list)
    released: list[tuple[str, str]] = field(default_factory=list)
    published: list[Observation] = field(default_factory=list)
    quarantined: list[Quarantine] = field(default_factory=list)
    queue: list[Waiter] = field(default_factory=list)
    left_queue: list[tuple[str, str]] = field(default_factory=list)
    committed: list[str] = field(default_factory=list)
    commit_refusal: CommitRefusal | None = None

    def reserve_count(
        self,
        claim: Claim,
        count: int,
        observation: Observation,
        options: GrantOptions = JOB_GRANT_OPTIONS,
    ) -> GrantedGpus | TooFewGpus | QueuePosition:
        answer = self._answer(observation, count)
        assert not isinstance(answer, BlockedGpu)
        return answer

    def reserve_given(
        self,
        claim: Claim,
        gpus: Sequence[str],
        observation: Observation,
        options: GrantOptions = JOB_GRANT_OPTIONS,
    ) -> GrantedGpus | BlockedGpu | QueuePosition:
        answer = self._answer(observation, list(gpus))
        assert not isinstance(answer, TooFewGpus)
        return answer

    def release(self, node: str, owner: str, reason: str, gpus: Sequence[str] = ()) -> list[str]:
        self.released.append((owner, reason))
        gone = [one for one in self.held if one.claim.owner == owner]
        self.held = [one for one in self.held if one.claim.owner != owner]
        return [one.gpu for one in gone]

    def commit(self, owner: str) -> CommitRefusal | None:
        self.committed.append(owner)
        return self.commit_refusal

    def publish_scan(self, observation: Observation, alive: Collection[str] = ()) -> None:
        self.published.append(observation)

    def read_nodes(self, nodes: Sequence[str] | None = None) -> list[NodeView]:
        assert nodes is not None
        by_gpu: dict[str, list[Reservation]] = {}
        for one in self.held:
            by_gpu.setdefault(one.gpu, []).append(one)
        held = {gpu: combine(some) or some[0] for gpu, some in by_gpu.items()}
        back = {one.gpu: one for one in self.quarantined}
        return [
            NodeView(node, 1.0, None, None, held, {}, back, tuple(self.queue)) for node in nodes
        ]

    def leave_queue(self, node: str, owners: Sequence[str], reason: str) -> None:
        self.left_queue += [(owner, reason) for owner in owners]
        self.queue = [one for one in self.queue if one.owner not in owners]

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"the service called {name} of the ledger")

    def _answer(self, observation: Observation, wanted: object) -> Answer:
        self.reserve_calls.append((observation, wanted))
        return self.answers[min(len(self.reserve_calls), len(self.answers)) - 1]
