"""A store with many nodes: one is made by the scripts, the others are copies of its keys."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from ledger_samples import observation, waiter
from servers.private_redis import PrivateRedis

from canhazgpu.config.schema import StoreConfig
from canhazgpu.gpu.scan import GpuHealth, GpuProcess, GpuReading
from canhazgpu.ledger.port import Observation
from canhazgpu.ledger.store.connect import Role
from canhazgpu.ledger.store.keys import node_keys, nodes_key
from canhazgpu.ledger.store.ledger import RedisLedger
from canhazgpu.ledger.values import Claim

HELD = (0, 2, 3, 5, 7)
"""The GPUs of eight that jobs hold."""
MODEL_NODE = "model"


def uuid(index: int) -> str:
    """A UUID as long as a real one."""
    return f"GPU-{index:08x}-1b2c-4d5e-8f90-a1b2c3d4e5f6"


def fill(
    server: PrivateRedis,
    names: Sequence[str],
    *,
    waiting: bool = False,
    held: Collection[int] = HELD,
) -> None:
    """Give the store these nodes: jobs on some of eight GPUs each, and one who waits if asked."""
    ledger = RedisLedger(StoreConfig(url=server.url), Role.WRITE)
    for index in held:
        ledger.reserve_given(_claim(index), [uuid(index)], _observation(()))
    if waiting:
        ledger.join_queue(MODEL_NODE, waiter(_claim(1), 2, lease_s=86400.0))
    time.sleep(0.003)
    ledger.publish_scan(_observation(held))
    _copy(server, MODEL_NODE, names)
    ledger_keys = node_keys(MODEL_NODE).in_order()
    with server.client() as client:
        client.delete(*ledger_keys)
        client.srem(nodes_key(), MODEL_NODE)


def _copy(server: PrivateRedis, model: str, names: Sequence[str]) -> None:
    import redis

    # What DUMP answers is no text.
    raw: Any = redis.Redis(unix_socket_path=str(server.socket))
    model_keys = node_keys(model).in_order()
    dumps = {place: dump for place, key in enumerate(model_keys) if (dump := raw.dump(key))}
    pipeline = raw.pipeline(transaction=False)
    for name in names:
        keys = node_keys(name).in_order()
        for place, dump in dumps.items():
            pipeline.restore(keys[place], 0, dump)
        pipeline.sadd(nodes_key(), name)
    pipeline.execute()
    raw.close()


def _claim(index: int) -> Claim:
    return Claim(
        owner=f"job:c1:{100 + index}:0",
        type="slurm",
        user=f"user{index}",
        uid=1000 + index,
        job_id=str(100 + index),
        job_name=f"train-{index}",
        ends_at=4e9,
        boot_id="3f1b6e1e-b0f4-4a3a-8d7b-0f7f6a3f5b11",
    )


def _observation(held: Collection[int]) -> Observation:
    seen = observation(MODEL_NODE, in_use=())
    gpus = tuple(_reading(index, used=index in held) for index in range(8))
    scan = replace(seen.scan, gpus=gpus)
    return replace(seen, scan=scan, in_use=frozenset(map(uuid, held)), partitions=("gpu", "long"))


def _reading(index: int, *, used: bool) -> GpuReading:
    process = GpuProcess(
        pid=12000 + index,
        uid=1000 + index,
        user=f"user{index}",
        name="python3",
        memory_mb=29000,
        model="meta-llama/Llama-3.1-8B-Instruct",
        job=f"slurm:{100 + index}",
        ancestors=(11000 + index, 900, 800, 1),
    )
    return GpuReading(
        index=index,
        uuid=uuid(index),
        device_number=index,
        name="NVIDIA H100 80GB HBM3",
        memory_used_mb=30045 if used else 45,
        memory_total_mb=81559,
        processes=(process,) if used else (),
        health=GpuHealth("none", False, False, False, 0, "default"),
        utilization_percent=50,
    )
