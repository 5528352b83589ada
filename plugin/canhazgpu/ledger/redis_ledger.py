"""The ledger in Redis: one Lua script and one round trip per change.

The scripts in ``scripts/`` state their keys, arguments, answers and invariants; here each has one
typed method. Reads are one transaction of plain commands, so that a user who may only read the
ledger can show it.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from canhazgpu.errors import InputError, ScanError, StoreError
from canhazgpu.gpu.scan import scan_from_json, scan_to_json
from canhazgpu.ledger import keys
from canhazgpu.ledger.connect import Role, connect, translate_errors
from canhazgpu.ledger.history import await_change, read_history
from canhazgpu.ledger.port import JOB_TERMS, Observation, Terms
from canhazgpu.ledger.values import (
    Blocked,
    Claim,
    Event,
    Granted,
    NodeView,
    ProcessId,
    Queued,
    Reservation,
    Short,
    Waiter,
    claim_to_dict,
    quarantine_from_json,
    reservation_from_json,
    waiter_from_json,
    waiter_to_dict,
)

if TYPE_CHECKING:
    import redis

    from canhazgpu.config.schema import StoreConfig

DAY_MS = 24 * 3600 * 1000
NODES_PER_READ = 64
"""Nodes read in one transaction; bounds the reply's size, not its correctness."""


class RedisLedger:
    """`Ledger` over a Redis or Valkey server; see `canhazgpu.ledger.port.Ledger`."""

    def __init__(self, store: StoreConfig, role: Role) -> None:
        self._store = store
        self._role = role
        self._in_cluster = store.url.startswith("redis+cluster://")
        self._history_ms = store.history_days * DAY_MS
        self._opened: redis.Redis | None = None
        self._blocking: redis.Redis | None = None
        self._scripts: dict[str, Callable[..., Any]] = {}

    def reserve_count(
        self, claim: Claim, count: int, observation: Observation, terms: Terms = JOB_TERMS
    ) -> Granted | Short | Queued:
        """See `Ledger.reserve_count`."""
        answer = self._run(
            "reserve_count",
            observation.scan.node,
            json.dumps(claim_to_dict(claim)),
            count,
            self._seen(observation),
            int(terms.queues),
            int(terms.affinity),
        )
        if answer[0] == "short":
            return Short(count, *map(int, answer[1:]))
        if answer[0] == "queued":
            return Queued(int(answer[1]))
        granted = self._granted(answer, observation)
        # One order for both answers; a GPU that the scan has lost comes last.
        places = {gpu: place for place, gpu in enumerate(observation.scan.by_uuid())}
        in_order = sorted(granted.gpus, key=lambda gpu: (places.get(gpu, len(places)), gpu))
        return Granted(tuple(in_order), granted.repeated)

    def reserve_given(
        self,
        claim: Claim,
        gpus: Sequence[str],
        observation: Observation,
        terms: Terms = JOB_TERMS,
    ) -> Granted | Blocked | Queued:
        """See `Ledger.reserve_given`."""
        wanted = list(dict.fromkeys(gpus))
        answer = self._run(
            "reserve_given",
            observation.scan.node,
            json.dumps(claim_to_dict(claim)),
            json.dumps(wanted),
            self._seen(observation, wanted),
            int(terms.queues),
        )
        if answer[0] == "blocked":
            gpu, why, holder = answer[1:]
            return Blocked(gpu, why, reservation_from_json(gpu, holder) if holder else None)
        if answer[0] == "queued":
            return Queued(int(answer[1]))
        return self._granted(answer, observation)

    def release(
        self, node: str, owner: str, reason: str, gpus: Sequence[str] = (), by: str = ""
    ) -> list[str]:
        """See `Ledger.release`."""
        return cast(list[str], self._run("release", node, owner, _only(gpus), reason, by))

    def renew(
        self, node: str, owner: str, processes: Sequence[ProcessId] | None = None
    ) -> list[str]:
        """See `Ledger.renew`."""
        given = json.dumps([asdict(one) for one in processes]) if processes else ""
        return cast(list[str], self._run("renew", node, owner, given))

    def extend(
        self, node: str, owner: str, duration_s: float, gpus: Sequence[str] = ()
    ) -> list[Reservation]:
        """See `Ledger.extend`."""
        answer = self._run("extend", node, owner, int(duration_s * 1000), _only(gpus))
        pairs = zip(answer[::2], answer[1::2], strict=True)
        return [reservation_from_json(gpu, text) for gpu, text in pairs]

    def wait_turn(self, node: str, waiter: Waiter) -> int:
        """See `Ledger.wait_turn`."""
        return int(self._run("wait_turn", node, json.dumps(waiter_to_dict(waiter))))

    def leave_queue(self, node: str, owners: Sequence[str], reason: str) -> None:
        """See `Ledger.leave_queue`."""
        self._run("leave_queue", node, reason, json.dumps(list(owners)))

    def quarantine(self, node: str, gpu: str, reason: str, by: str) -> bool:
        """See `Ledger.quarantine`."""
        return bool(self._run("quarantine", node, gpu, reason, by))

    def unquarantine(self, node: str, gpu: str, by: str) -> bool:
        """See `Ledger.unquarantine`."""
        return bool(self._run("unquarantine", node, gpu, by))

    def forget_node(self, node: str) -> bool:
        """See `Ledger.forget_node`."""
        code, answer = self._run("forget_node", node)
        if code == "reserved":
            raise InputError(f"GPU {answer} of {node} is reserved: release it first")
        with self._errors():
            listed = self._client().srem(keys.NODES, node)
        return bool(answer) or bool(listed)

    def publish_scan(self, observation: Observation) -> None:
        """See `Ledger.publish_scan`."""
        node = observation.scan.node
        if not self._run("publish_scan", node, self._seen(observation)):
            self._list_node(node)

    def await_change(self, node: str, after: str, timeout_s: float) -> str:
        """See `Ledger.await_change`."""
        with self._errors():
            if self._blocking is None:
                self._blocking = connect(self._store, self._role)
            return await_change(
                self._blocking,
                keys.node_keys(node).history,
                after,
                timeout_s,
                self._store.timeout_s,
            )

    def history(self, node: str, since: float) -> list[Event]:
        """See `Ledger.history`."""
        with self._errors():
            return read_history(self._client(), keys.node_keys(node).history, since)

    def look(self, nodes: Sequence[str] | None = None) -> list[NodeView]:
        """See `Ledger.look`."""
        with self._errors():
            client = self._client()
            names = sorted(_listed(client) if nodes is None else nodes)
            views = []
            for first in range(0, len(names), NODES_PER_READ):
                some = names[first : first + NODES_PER_READ]
                views += _read_nodes(client, some, in_cluster=self._in_cluster)
            return views

    def _granted(self, answer: list[str], observation: Observation) -> Granted:
        code, known, *gpus = answer
        if not known:
            self._list_node(observation.scan.node)
        return Granted(tuple(gpus), repeated=code == "repeated")

    def _list_node(self, node: str) -> None:
        # Its own command: the index of nodes has no node's hash tag, so no script may touch both.
        with self._errors():
            self._client().sadd(keys.NODES, node)

    def _age_ms(self, observation: Observation) -> int:
        """Return the scan's age, counting what opening the connection takes from now."""
        began = time.monotonic() - observation.age_s
        with self._errors():
            self._client()
        # Rounded up: a scan taken for older than it is only costs another scan.
        return int((time.monotonic() - began) * 1000) + 1

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            with translate_errors(self._store):
                yield
        except UnicodeDecodeError as exc:
            raise StoreError(f"the ledger holds what is no text: {exc}") from exc

    def _client(self) -> redis.Redis:
        if self._opened is None:
            self._opened = connect(self._store, self._role)
        return self._opened

    def _run(self, name: str, node: str, *arguments: str | int) -> Any:
        with self._errors():
            script = self._scripts.get(name)
            if script is None:
                script = self._client().register_script(_source(name))
                self._scripts[name] = script
            return script(keys=keys.node_keys(node).all(), args=[self._history_ms, *arguments])

    def _seen(self, observation: Observation, wanted: Sequence[str] = ()) -> str:
        """Return the observation for the scripts; GPUs the scan does not know are unknown."""
        by_uuid = observation.scan.by_uuid()
        busy = observation.in_use | observation.unknown
        unfit = {gpu: "unknown" for gpu in wanted if gpu not in by_uuid}
        unfit |= dict.fromkeys(observation.in_use, "unreserved")
        unfit |= dict.fromkeys(observation.unknown, "unknown")
        return json.dumps(
            {
                "age_ms": self._age_ms(observation),
                "scan": scan_to_json(observation.scan),
                "seen": list(by_uuid),
                "idle": [gpu for gpu in by_uuid if gpu not in busy],
                "unfit": unfit,
                "unhealthy": dict(observation.unhealthy),
            }
        )


def _source(name: str) -> str:
    scripts = Path(__file__).with_name("scripts")
    return "".join((scripts / f"{one}.lua").read_text("utf-8") for one in ("_common", name))


def _only(gpus: Sequence[str]) -> str:
    return json.dumps(dict.fromkeys(gpus, True))


def _listed(client: redis.Redis) -> list[str]:
    """Return the nodes in the index, without what somebody else put there."""
    return [
        name for name in cast(Iterable[str], client.smembers(keys.NODES)) if keys.is_node_name(name)
    ]


def _read_nodes(client: redis.Redis, names: Sequence[str], *, in_cluster: bool) -> list[NodeView]:
    # The servers of a cluster share neither a transaction nor a clock.
    pipeline = client.pipeline(transaction=not in_cluster)
    if not in_cluster:
        pipeline.time()
    for name in names:
        node = keys.node_keys(name)
        for key in (node.scan, node.reservations, node.released, node.quarantine, node.queue):
            pipeline.hgetall(key)
    hashes = pipeline.execute()
    seconds, microseconds = cast(tuple[int, int], client.time() if in_cluster else hashes.pop(0))
    read_at = seconds + microseconds / 1e6
    return [
        _view(name, read_at, hashes[5 * place : 5 * place + 5]) for place, name in enumerate(names)
    ]


def _view(name: str, read_at: float, hashes: Sequence[dict[str, str]]) -> NodeView:
    scan, records, released, quarantines, queue = hashes
    reservations = {gpu: reservation_from_json(gpu, text) for gpu, text in records.items()}
    released_at = {gpu: at for gpu, text in released.items() if (at := _seconds(text)) is not None}
    expired = {
        gpu: one.expires_at
        for gpu, one in reservations.items()
        if one.expires_at is not None and one.expires_at <= read_at
    }
    waiters = filter(None, (waiter_from_json(owner, text) for owner, text in queue.items()))
    return NodeView(
        node=name,
        read_at=read_at,
        scan=_published(scan),
        scanned_at=_seconds(scan.get("at")),
        reservations={gpu: one for gpu, one in reservations.items() if gpu not in expired},
        released_at={**released_at, **expired},
        quarantines={gpu: quarantine_from_json(gpu, text) for gpu, text in quarantines.items()},
        queue=tuple(
            waiter
            for _, waiter in sorted(waiters, key=lambda one: (one[0], one[1].owner))
            if waiter.renewed_at + waiter.lease_s >= read_at
        ),
    )


def _published(scan: dict[str, str]) -> Any:
    if "data" not in scan:
        return None
    try:
        return scan_from_json(scan["data"])
    except ScanError:
        # Somebody else's text under our key, or another release's: as good as no scan.
        return None


def _seconds(milliseconds: str | None) -> float | None:
    try:
        seconds = None if milliseconds is None else float(milliseconds) / 1000
    except ValueError:
        return None
    return seconds if seconds is not None and math.isfinite(seconds) else None


__all__ = ["RedisLedger", "Role", "StoreError"]
