"""Claims and observations for tests of whatever stands on the ledger."""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import redis

from canhazgpu.config.schema import StoreConfig
from canhazgpu.gpu.scan import GpuReading, Scan
from canhazgpu.ledger.owner import JobOwner
from canhazgpu.ledger.port import Observation
from canhazgpu.ledger.store.connect import Role
from canhazgpu.ledger.store.ledger import RedisLedger
from canhazgpu.ledger.values import Claim, NodeView, Share, Waiter
from canhazgpu.node.process_id import ProcessId

Observe = Callable[..., Observation]
"""What the fixture `observe` gives: observations of the test's node."""

_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Store:
    """A running store, and how to look behind the product's back."""

    config: StoreConfig
    raw_client: redis.Redis

    def ledger(self, role: Role = Role.WRITE) -> RedisLedger:
        return RedisLedger(self.config, role)


def new_node_name() -> str:
    return f"node-{os.getpid()}-{next(_numbers)}"


def uuid(index: int) -> str:
    return f"GPU-{index}"


def gpus(*indices: int) -> tuple[str, ...]:
    return tuple(map(uuid, indices))


def view(ledger: RedisLedger, node: str) -> NodeView:
    """What the ledger says of one node."""
    (found,) = ledger.read_nodes([node])
    return found


def observation(
    node: str,
    gpus: int = 4,
    *,
    age_s: float = 0.0,
    in_use: tuple[int, ...] = (),
    unknown: tuple[int, ...] = (),
    unhealthy: dict[int, str] | None = None,
    covered: dict[int, tuple[str, ...]] | None = None,
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
        unhealthy={uuid(index): reason for index, reason in (unhealthy or {}).items()},
        covered={uuid(index): frozenset(owners) for index, owners in (covered or {}).items()},
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


def as_told(claim: Claim) -> Claim:
    """What the history keeps of the claim."""
    return Claim(
        claim.owner,
        claim.type,
        claim.user,
        uid=claim.uid,
        job_id=claim.job_id,
        share=claim.share,
    )


def share(number: int | str, kind: str = "shard", user: str = "ann") -> Claim:
    """The claim of a job that has a quarter of each of its GPUs."""
    return replace(job(number), user=user, share=Share(kind, 1, 4))


def run(number: int | str, user: str = "ann") -> Claim:
    """A running command's claim."""
    return Claim(
        owner=f"run:{number}",
        type="run",
        user=user,
        uid=1000,
        boot_id="b",
        processes=(ProcessId(4194304, 99999999999999), ProcessId(1, 0)),
        pid_namespace=4026531836,
    )


def manual(number: int | str, duration_s: float = 3600.0, user: str = "ann") -> Claim:
    """A person's claim for a time."""
    return Claim(
        owner=f"manual:{number}",
        type="manual",
        user=user,
        uid=1000,
        note='"debugging" {ü}',
        duration_s=duration_s,
    )


def waiter(claim: Claim, count: int = 1, lease_s: float = 60.0) -> Waiter:
    """Whoever will reserve with this claim, in the queue."""
    return Waiter(
        owner=claim.owner,
        user=claim.user,
        uid=claim.uid,
        count=count,
        boot_id=claim.boot_id,
        processes=claim.processes,
        pid_namespace=claim.pid_namespace,
        lease_s=lease_s,
    )


def patch_record(store: redis.Redis, key: str, field: str, **changes: object) -> None:
    """Change a record behind the ledger's back: time passes, say."""
    record = json.loads(store.hget(key, field) or "")
    store.hset(key, field, json.dumps(record | changes))


def contents(store: redis.Redis, keys: Iterable[str]) -> dict[str, object]:
    """What the keys hold; a dump would change with the order of a hash, which is the server's."""
    readers: dict[str, Callable[[str], object]] = {
        "hash": store.hgetall,
        "stream": store.xrange,
        "list": lambda key: store.lrange(key, 0, -1),
        "set": store.smembers,
        "string": store.get,
        "none": lambda _: None,
    }
    return {key: readers[str(store.type(key))](key) for key in keys}


def store_time_ms(store: redis.Redis) -> int:
    """The store's clock."""
    seconds, microseconds = store.time()
    return seconds * 1000 + microseconds // 1000


def wait_for_next_ms() -> None:
    """Let the store's clock, which counts milliseconds, go on: a scan begun now is newer."""
    time.sleep(0.003)
