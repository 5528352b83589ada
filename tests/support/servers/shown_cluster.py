"""A store whose nodes have a GPU in each state, people who hold them, and one who waits."""

from __future__ import annotations

import time
from dataclasses import replace

from ledger_samples import observation, waiter
from servers.private_redis import PrivateRedis

from canhazgpu.config.schema import StoreConfig
from canhazgpu.gpu.scan import GpuProcess, GpuReading
from canhazgpu.ledger.port import Observation
from canhazgpu.ledger.store.connect import Role
from canhazgpu.ledger.store.ledger import RedisLedger
from canhazgpu.ledger.values import Claim

H100 = "NVIDIA H100 80GB HBM3"


def gpu_uuid(node: str, index: int) -> str:
    return f"GPU-{node}-{index}"


def uid_of(user: str) -> int:
    return 60000 + sum(user.encode()) % 1000


def job_claim(number: int, user: str, name: str = "train", **more: object) -> Claim:
    claim = Claim(
        owner=f"job:c1:{number}:0",
        type="slurm",
        user=user,
        uid=uid_of(user),
        job_id=str(number),
        job_name=name,
        ends_at=time.time() + 86400.0,
    )
    return replace(claim, **more)  # type: ignore[arg-type]


def seen(node: str, used: dict[int, str], broken: tuple[int, ...] = ()) -> Observation:
    """A scan of eight GPUs, of which these users use some, and some cannot be read."""
    found = observation(node, in_use=tuple(used))
    gpus = tuple(_reading(node, index, used.get(index, ""), index in broken) for index in range(8))
    in_use = frozenset(gpu_uuid(node, index) for index in used)
    return replace(
        found,
        scan=replace(found.scan, gpus=gpus),
        in_use=in_use,
        unknown=frozenset(gpu_uuid(node, index) for index in broken),
        partitions=("gpu", "long" if node.endswith("1") else "short"),
    )


def fill(server: PrivateRedis) -> RedisLedger:
    """Fill it, and return the ledger: nodes n1 and n2.

    On n1 anna's job 41 holds GPUs 0 and 1, mallory uses GPU 1 and without a reservation GPU 2, GPU
    3 is quarantined, GPU 4 cannot be read; cleo waits. On n2 bert's run holds GPU 0.
    """
    ledger = RedisLedger(StoreConfig(url=server.url), Role.WRITE)
    ledger.reserve_given(
        job_claim(41, "anna"), [gpu_uuid("n1", 0), gpu_uuid("n1", 1)], seen("n1", {})
    )
    run = Claim(owner="run:00000000000000b0", type="run", user="bert", uid=uid_of("bert"))
    ledger.reserve_given(run, [gpu_uuid("n2", 0)], seen("n2", {}))
    time.sleep(0.003)
    ledger.publish_scan(seen("n1", {0: "anna", 1: "mallory", 2: "mallory"}, broken=(4,)))
    ledger.publish_scan(seen("n2", {0: "bert"}))
    ledger.quarantine("n1", gpu_uuid("n1", 3), "row remap pending", "root")
    cleo = Claim(owner="run:00000000000000c0", type="run", user="cleo", uid=uid_of("cleo"))
    ledger.join_queue("n1", waiter(cleo, 2, lease_s=86400.0))
    return ledger


def _reading(node: str, index: int, user: str, broken: bool) -> GpuReading:
    process = GpuProcess(
        pid=12000 + index, user=user, uid=uid_of(user), name="python3",
        memory_mb=30000, model="meta-llama/Llama-3.1-8B",
    )  # fmt: skip
    return GpuReading(
        index,
        gpu_uuid(node, index),
        index,
        H100,
        None if broken else 30045 if user else 45,
        81559,
        (process,) if user else (),
        fault="GPU is lost" if broken else None,
        utilization_percent=87 if user else 0,
    )
