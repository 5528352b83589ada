"""Claims and observations for tests of whatever stands on the ledger."""

from __future__ import annotations

import itertools
import os
import time
from dataclasses import dataclass

import redis

from canhazgpu.config.schema import StoreConfig
from canhazgpu.gpu.scan import GpuReading, Scan
from canhazgpu.ledger.connect import Role
from canhazgpu.ledger.port import Observation
from canhazgpu.ledger.redis_ledger import RedisLedger
from canhazgpu.ledger.values import Claim, JobOwner

_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Store:
    """A running store, and how to look behind the product's back."""

    config: StoreConfig
    direct: redis.Redis

    def ledger(self, role: Role = Role.WRITE) -> RedisLedger:
        return RedisLedger(self.config, role)


def fresh_node() -> str:
    return f"node-{os.getpid()}-{next(_numbers)}"


def uuid(index: int) -> str:
    return f"GPU-{index}"


def observation(
    node: str,
    gpus: int = 4,
    *,
    age_s: float = 0.0,
    in_use: tuple[int, ...] = (),
    unknown: tuple[int, ...] = (),
) -> Observation:
    """A scan of so many GPUs that began `age_s` ago."""
    readings = tuple(
        GpuReading(index, uuid(index), index, "H100", 0, 80000) for index in range(gpus)
    )
    return Observation(
        Scan(node, 0.0, 0.0, readings),
        age_s,
        in_use=frozenset(map(uuid, in_use)),
        unknown=frozenset(map(uuid, unknown)),
    )


def job(job_id: int | str, attempt: int = 0) -> Claim:
    return Claim(
        owner=JobOwner("c1", str(job_id), attempt).token,
        type="job",
        user="ann",
        uid=1000,
        job_id=str(job_id),
        job_name='a "name", with {braces}',
        boot_id="b",
    )


def pass_time() -> None:
    """Let the store's clock, which counts milliseconds, go on: a scan begun now is newer."""
    time.sleep(0.003)
