"""Whatever stands in Redis under our keys: commands say what they can, and grant no GPU by it."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import redis
from garbage.judgement import CHANGES, LOOKS, Judged, fuzzed
from garbage.values import CONTENTS, damaged
from hosts.cli_node import CliNode, make_cli_node
from hypothesis import given
from hypothesis import strategies as st
from ledger_samples import waiter

from canhazgpu.cli.app import App
from canhazgpu.ledger.store.keys import NODES, node_keys, order_keys
from canhazgpu.ledger.values import Claim

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

NODE, OTHER = "n1", "n2"
KEYS = [
    NODES,
    *node_keys(NODE).in_order(),
    *order_keys(NODE).in_order(),
    *node_keys(OTHER).in_order(),
]


@dataclass
class Store:
    """The store as it is with all that commands write, to be made anew for each example."""

    here: CliNode
    client: redis.Redis
    known: Mapping[str, bytes]
    app: App

    def restore(self) -> None:
        self.client.flushall()
        for key, content in self.known.items():
            self.client.restore(key, 0, content)

    def put(self, key: str, change: Change) -> None:
        kind, field, content = change
        name = field.encode("utf-8", "replace") or b"x"
        if kind == "field":
            known = self.client.type(key)
            if known == b"hash":
                fields = sorted(self.client.hkeys(key))
                self.client.hset(key, fields[len(field) % len(fields)], content)
            return
        self.client.delete(key)
        if kind == "string":
            self.client.set(key, content)
        elif kind == "hash":
            self.client.hset(key, name, content)
        elif kind == "list":
            self.client.rpush(key, content, name)
        elif kind == "set":
            self.client.sadd(key, content, name)
        elif kind == "zset":
            self.client.zadd(key, {content: 1.5})
        elif kind == "stream":
            self.client.xadd(key, {name: content, b"event": b"grant", b"claim": content})

    def held(self) -> set[bytes]:
        """The GPUs of which anything is written that keeps others from them."""
        keys = node_keys(NODE)
        return {
            gpu
            for key in (keys.reservations, keys.quarantine)
            if self.client.type(key) == b"hash"
            for gpu in self.client.hkeys(key)
        }


Change = tuple[str, str, bytes]
TYPES = ("string", "hash", "list", "set", "zset", "stream", "none")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with pytest.MonkeyPatch.context() as patch, make_cli_node(4) as here:
        patch.setenv("FAKE_NVML_NODE", NODE)
        directory = tmp_path_factory.mktemp("garbage")
        environ = here.env(
            CANHAZGPU_NODE_STATE_DIR=str(directory / "run"),
            CANHAZGPU_NODE_MARKER_DIR=str(directory / "lib"),
        )
        app = App(environ=environ, agent=lambda: "", absent_agent=lambda _: "")
        client = redis.Redis.from_url(here.redis.url)
        fill(here, app)
        known = {key.decode(): client.dump(key) for key in client.scan_iter()}
        yield Store(here, client, known, app)
        client.close()


def fill(here: CliNode, app: App) -> None:
    """Have of everything something in the store."""
    me = pwd.getpwuid(os.getuid()).pw_name
    here.publish()
    here.reserve(Claim("manual:1", "manual", "carol", 4242, duration_s=3600.0), 0)
    here.reserve(Claim("manual:2", "manual", me, os.getuid(), duration_s=3600.0), 1)
    here.reserve(Claim("job:c1:12:0", "slurm", "ann", job_id="12"), 2)
    ledger = here.ledger()
    ledger.join_queue(NODE, waiter(Claim("run:w1", "run", "dan", 4343)))
    gpu = here.observe().scan.gpus[3].uuid
    ledger.quarantine(NODE, gpu, "broken", "root")
    ledger.unquarantine(NODE, gpu, "root")
    judged = Judged("without garbage")
    for arguments in LOOKS:
        judged.command(app, arguments)
    judged.assert_none_broke()


@st.composite
def changes(draw: st.DrawFn, store: Store) -> list[tuple[str, Change]]:
    made = []
    for _ in range(draw(st.integers(1, 4))):
        key = draw(st.sampled_from(KEYS))
        kind = draw(st.sampled_from(["field", "field", "field", *TYPES]))
        known = store.client.hvals(key) if store.client.type(key) == b"hash" else []
        content = draw(damaged(draw(st.sampled_from(known)))) if known else draw(CONTENTS)
        made.append((key, (kind, draw(st.text(max_size=8)), content)))
    return made


def test_any_content(store: Store, figures: Callable[[str], None]) -> None:
    judged = Judged("store contents, all commands")

    @fuzzed
    @given(st.data())
    def holds(data: Any) -> None:
        store.restore()
        for key, change in data.draw(changes(store)):
            store.put(key, change)
        judged.tried += 1
        for arguments in LOOKS:
            judged.command(store.app, arguments)
        before = store.held()
        for arguments in CHANGES:
            said = judged.command(store.app, arguments)
            if arguments[0] == "reserve":
                given_now = store.held() - before if "Reserved" in said else set()
                judged.grants("reserve", map(str, given_now), map(str, before))
        judged.assert_none_broke()

    try:
        holds()
    finally:
        figures(str(judged))
