#!/usr/bin/python3
"""Time what commands take on clusters of many nodes, and what their store holds and does.

    cluster_time.py [--days N] [--jobs N] [--rounds N] [--load SECONDS] [--only TEXT]...
                    [--seed FILE] [--json] NODES...

Run it with the Python of an environment that has canhazgpu installed, with its embedded store. A
Redis server and libfaketime are needed. For each number of nodes a private Redis is filled: one
node's days by the real scripts, then copied under other names. Above 1,000 nodes the history is
shorter: the memory is that of 100 nodes with all of it (marked "computed"). Each row is printed as
soon as it is measured; what is done now stands on stderr. A command that takes long is measured
once. `--only` leaves out the commands whose rows have none of the texts ("nothing" for none).
`--seed` keeps the node whose days went by in a file, for runs of the same day and revision.

    memory          bytes of the store for each node, and for one node by key
    commands        CPU time and wall time (medians of the rounds), highest memory, and through a
                    proxy round trips and bytes; "above" is the CPU time above that on one node
    load            health checks of all nodes each minute, 100 job starts and 100 ends a second,
                    100 status a minute, as people at a terminal get it: the server's share of a
                    core, its own latencies, and the CPU time of what sends all this
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import pwd
import statistics
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from canhazgpu.ledger.owner import RUN
from canhazgpu.ledger.values import Claim
from cluster_commands import (
    ASKED_JOB,
    ASKED_NODES,
    ASKED_RUN,
    COMMANDS,
    FULL_COMMANDS,
    PERSON,
    rows_of,
    timed_command,
)
from cluster_load import LoadResult, run_load
from cluster_node import NodeLife
from cluster_store import Seed, Server, fill, lived_node, occupy, plant
from cluster_tables import CommandCost, Found, NoTables, Tables
from counting_proxy import CountingProxy

DEFAULT_DAYS, DEFAULT_JOBS, DEFAULT_ROUNDS = 90.0, 50, 3
WHOLE_HISTORY_NODES = 1000
"""Above so many nodes the history is shorter."""
SHORT_DAYS = 3.0
SAMPLED_NODES = 100
"""With so many nodes the memory of one is measured where the history is shorter."""
LONG_S = 4.0
"""A command whose rounds took so long is measured no more."""
BEGAN = time.monotonic()
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
CONFIG = """\
[store]
url = "unix://{socket}"
timeout_s = 30.0

[agent]
role = "reader"

[slurm]
bin_dir = "{bin}"
"""
"""Of a login host: it has no GPUs, and Slurm answers nothing."""


class Bench:
    """Measures clusters of different sizes with one node's days, and prints rows."""

    def __init__(self, directory: Path, seed: Seed, given: argparse.Namespace) -> None:
        self._directory = directory
        self._seed = seed
        self._rounds: int = given.rounds
        self._load_s: float = given.load
        self._only: list[str] = given.only
        self._tables = NoTables() if given.json else Tables()

    def measure(self, nodes: int) -> Found:
        """Fill a store with so many nodes and measure."""
        place = self._directory / f"nodes-{nodes}"
        with Server(place) as server:
            is_computed = nodes > WHOLE_HISTORY_NODES
            by_key, per_node = self._filled(server, SAMPLED_NODES if is_computed else nodes)
            if is_computed:
                server.client.flushall()
                short = self._seed.since(time.time() - SHORT_DAYS * 86400)
                plant(server, short)
                _say(f"{nodes} nodes with the history of {SHORT_DAYS:.0f} days")
                fill(server, short, range(1, nodes + 1))
            self._tables.memory(nodes, per_node, is_computed, by_key)
            _ask_for_nodes(server)
            config = place / "config.toml"
            config.write_text(CONFIG.format(socket=server.socket, bin=place))
            with CountingProxy(place / "proxy.sock", server.socket) as proxy:
                counted = place / "counted.toml"
                counted.write_text(CONFIG.format(socket=proxy.path, bin=place))
                self._tables.heading()
                commands = self._costs(self._chosen(COMMANDS), config, counted, proxy)
                load = self._load(server, nodes, counted, proxy) if self._load_s else None
                if rows := self._chosen(FULL_COMMANDS):
                    occupy(server, range(1, nodes * 19 // 20 + 1))
                    commands |= self._costs(rows, config, counted, proxy)
            return Found(nodes, per_node, is_computed, by_key, commands, load)

    def _filled(self, server: Server, nodes: int) -> tuple[dict[str, int], float]:
        """Return the bytes of one node by key, and those of each of so many."""
        _say(f"{nodes} nodes with their whole history")
        by_key = plant(server, self._seed)
        before = server.used_memory()
        fill(server, self._seed, range(1, nodes + 1))
        return by_key, (server.used_memory() - before) / nodes

    def _chosen(self, commands: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        return rows_of(commands, self._only)

    def _costs(
        self,
        rows: dict[str, tuple[str, ...]],
        config: Path,
        counted: Path,
        proxy: CountingProxy,
    ) -> dict[str, CommandCost]:
        found = {}
        for name, words in rows.items():
            _say(name)
            found[name] = self._cost(words, config, counted, proxy)
            self._tables.command(name, found[name])
        return found

    def _cost(
        self, words: tuple[str, ...], config: Path, counted: Path, proxy: CountingProxy
    ) -> CommandCost:
        taken = [timed_command(words, config)]
        while len(taken) < self._rounds and sum(one[1] for one in taken) < LONG_S:
            taken.append(timed_command(words, config))
        proxy.reset()
        status = timed_command(words, counted)[3]
        traffic = proxy.traffic
        return CommandCost(
            statistics.median(one[0] for one in taken),
            statistics.median(one[1] for one in taken),
            max(one[2] for one in taken),
            traffic.round_trips,
            traffic.sent,
            traffic.received,
            taken[-1][3] or status,
        )

    def _load(self, server: Server, nodes: int, counted: Path, proxy: CountingProxy) -> LoadResult:
        _say("load")
        proxy.record()
        timed_command(COMMANDS["status --summary"], counted)
        load = run_load(server, nodes, self._load_s, proxy.recorded())
        self._tables.load(load)
        return load


def _ask_for_nodes(server: Server) -> None:
    """Let the person hold GPUs for one job on two nodes, and somebody else run a command on one."""
    person = pwd.getpwnam(PERSON) if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
    for name in ASKED_NODES:
        node = NodeLife(name, server.store)
        node.check()
        node.start(0, 2, ASKED_JOB, (person.pw_name, person.pw_uid))
        node.check()
    claim = Claim(ASKED_RUN, RUN, "user0001", 20001)
    node.ledger.reserve_given(claim, node.uuids[-1:], node.observation())


def _say(doing: str) -> None:
    print(f"[{time.monotonic() - BEGAN:4.0f} s] {doing}", file=sys.stderr, flush=True)


def _seed(directory: Path, given: argparse.Namespace) -> Seed:
    """Return one node's days, from the file if it is there."""
    if given.seed is not None and given.seed.exists():
        seed: Seed = pickle.loads(given.seed.read_bytes())  # noqa: S301 - its own
        return seed
    _say(f"{given.days:g} days of one node")
    seed = lived_node(directory, given.days, given.jobs)
    if given.seed is not None:
        given.seed.write_bytes(pickle.dumps(seed))
    return seed


def main(given: argparse.Namespace) -> list[Found]:
    """Return what was measured with each number of nodes."""
    with tempfile.TemporaryDirectory(prefix="cluster-time-", dir=MEMORY) as name:
        directory = Path(name)
        directory.chmod(0o755)
        bench = Bench(directory, _seed(directory, given), given)
        return [bench.measure(nodes) for nodes in given.nodes]


def as_data(found: list[Found]) -> list[dict[str, Any]]:
    """Return it for JSON."""
    return [asdict(one) for one in found]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--days", type=float, default=DEFAULT_DAYS)
    parser.add_argument("--jobs", type=int, default=DEFAULT_JOBS, help="a day, on each node")
    parser.add_argument("--rounds", type=int, default=DEFAULT_ROUNDS)
    parser.add_argument("--load", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--only", action="append", default=[], metavar="TEXT")
    parser.add_argument("--seed", type=Path, metavar="FILE")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("nodes", nargs="+", type=int)
    arguments = parser.parse_args()
    results = main(arguments)
    if arguments.json:
        print(json.dumps(as_data(results)))
