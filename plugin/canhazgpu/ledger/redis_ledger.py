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
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from canhazgpu.errors import ScanError, StoreError
from canhazgpu.gpu.scan import scan_from_json, scan_to_json
from canhazgpu.ledger import keys
from canhazgpu.ledger.connect import Role, connect, translate_errors
from canhazgpu.ledger.port import Observation
from canhazgpu.ledger.values import (
    Blocked,
    Claim,
    Granted,
    NodeView,
    Short,
    claim_to_dict,
    quarantine_from_json,
    reservation_from_json,
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
        self._scripts: dict[str, Callable[..., Any]] = {}

    def reserve_count(self, claim: Claim, count: int, observation: Observation) -> Granted | Short:
        """See `Ledger.reserve_count`."""
        node = keys.node_keys(observation.scan.node)
        candidates = list(observation.scan.by_uuid())
        answer = self._run(
            "reserve_count",
            [node.reservations, node.released, node.quarantine, node.scan, node.history],
            [
                json.dumps(claim_to_dict(claim)),
                count,
                json.dumps(candidates),
                _unfit(observation),
                self._age_ms(observation),
                scan_to_json(observation.scan),
                self._history_ms,
            ],
        )
        if answer[0] == "short":
            return Short(count, *map(int, answer[1:]))
        granted = self._granted(answer, observation)
        # One order for both answers; a GPU that the scan has lost comes last.
        places = {gpu: place for place, gpu in enumerate(candidates)}
        in_order = sorted(granted.gpus, key=lambda gpu: (places.get(gpu, len(places)), gpu))
        return Granted(tuple(in_order), granted.repeated)

    def reserve_given(
        self, claim: Claim, gpus: Sequence[str], observation: Observation
    ) -> Granted | Blocked:
        """See `Ledger.reserve_given`."""
        node = keys.node_keys(observation.scan.node)
        wanted = list(dict.fromkeys(gpus))
        answer = self._run(
            "reserve_given",
            [node.reservations, node.released, node.quarantine, node.scan, node.history],
            [
                json.dumps(claim_to_dict(claim)),
                json.dumps(wanted),
                _unfit(observation, wanted),
                self._age_ms(observation),
                scan_to_json(observation.scan),
                self._history_ms,
            ],
        )
        if answer[0] == "blocked":
            gpu, why, holder = answer[1:]
            return Blocked(gpu, why, reservation_from_json(gpu, holder) if holder else None)
        return self._granted(answer, observation)

    def release(self, node: str, owner: str, reason: str, gpus: Sequence[str] = ()) -> list[str]:
        """See `Ledger.release`."""
        found = keys.node_keys(node)
        only = json.dumps(dict.fromkeys(gpus, True))
        return cast(
            list[str],
            self._run(
                "release",
                [found.reservations, found.released, found.history],
                [owner, only, reason, self._history_ms],
            ),
        )

    def publish_scan(self, observation: Observation) -> None:
        """See `Ledger.publish_scan`."""
        node = observation.scan.node
        self._run(
            "publish_scan",
            [keys.node_keys(node).scan],
            [scan_to_json(observation.scan), self._age_ms(observation)],
        )
        self._list_node(node)

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

    def _run(self, name: str, key_names: list[str], arguments: list[str | int]) -> Any:
        with self._errors():
            script = self._scripts.get(name)
            if script is None:
                script = self._client().register_script(_source(name))
                self._scripts[name] = script
            return script(keys=key_names, args=arguments)


def _source(name: str) -> str:
    return Path(__file__).with_name("scripts").joinpath(f"{name}.lua").read_text("utf-8")


def _listed(client: redis.Redis) -> list[str]:
    """Return the nodes in the index, without what somebody else put there."""
    return [
        name for name in cast(Iterable[str], client.smembers(keys.NODES)) if keys.is_node_name(name)
    ]


def _unfit(observation: Observation, wanted: Sequence[str] = ()) -> str:
    """Say which GPUs were not seen free; one that the scan does not know at all is among them."""
    seen = observation.scan.by_uuid()
    unfit = {gpu: "unknown" for gpu in wanted if gpu not in seen}
    unfit |= dict.fromkeys(observation.in_use, "unreserved")
    unfit |= dict.fromkeys(observation.unknown, "unknown")
    return json.dumps(unfit)


def _read_nodes(client: redis.Redis, names: Sequence[str], *, in_cluster: bool) -> list[NodeView]:
    # The servers of a cluster share neither a transaction nor a clock.
    pipeline = client.pipeline(transaction=not in_cluster)
    if not in_cluster:
        pipeline.time()
    for name in names:
        node = keys.node_keys(name)
        for key in (node.scan, node.reservations, node.released, node.quarantine):
            pipeline.hgetall(key)
    hashes = pipeline.execute()
    seconds, microseconds = cast(tuple[int, int], client.time() if in_cluster else hashes.pop(0))
    read_at = seconds + microseconds / 1e6
    return [
        _view(name, read_at, hashes[4 * place : 4 * place + 4]) for place, name in enumerate(names)
    ]


def _view(name: str, read_at: float, hashes: Sequence[dict[str, str]]) -> NodeView:
    scan, reservations, released, quarantines = hashes
    return NodeView(
        node=name,
        read_at=read_at,
        scan=_published(scan),
        scanned_at=_seconds(scan.get("at")),
        reservations={gpu: reservation_from_json(gpu, text) for gpu, text in reservations.items()},
        released_at={
            gpu: at for gpu, text in released.items() if (at := _seconds(text)) is not None
        },
        quarantines={gpu: quarantine_from_json(gpu, text) for gpu, text in quarantines.items()},
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
