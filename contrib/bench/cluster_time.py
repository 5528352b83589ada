#!/usr/bin/python3
"""Time what commands take on clusters of many nodes, and what their store holds and does.

    cluster_time.py [--days N] [--jobs N] [--rounds N] [--load SECONDS] [--json] NODES...

Run it with the Python of an environment that has canhazgpu installed, with its embedded store. A
Redis server and libfaketime are needed. For each number of nodes a private Redis is filled: one
node's days by the real scripts, then copied under other names. Above 1,000 nodes the history is
shorter: its bytes are measured on one node and added (marked "computed").

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
import pwd
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cluster_load import LoadResult, run_load
from cluster_node import NodeLife
from cluster_store import Seed, Server, fill, lived_node, plant, trim_history
from counting_proxy import CountingProxy

DEFAULT_DAYS, DEFAULT_JOBS, DEFAULT_ROUNDS = 90.0, 50, 3
WHOLE_HISTORY_NODES = 1000
"""Above so many nodes the history is shorter."""
SHORT_DAYS = 3.0
PERSON = "games"
"""Who asks what is theirs."""
ASKED_NODES = ("a0001", "a0002")
ASKED_JOB = 990_000_001
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
COMMANDS: dict[str, tuple[str, ...]] = {
    "status --summary": ("status", "--summary"),
    "status --free --summary": ("status", "--free", "--summary"),
    "queue": ("queue",),
    "admin nodes": ("admin", "nodes"),
    "status --json": ("status", "--json"),
    "status --json --stream": ("status", "--json", "--stream"),
    "status --me": ("status", "--me"),
    "status --node X": ("status", "--node", ASKED_NODES[0]),
    "explain JOB": ("explain", str(ASKED_JOB)),
    "completion of a node": (),
    "events --since 5m": ("events", "--since", "5m"),
    "report --days 30": ("report", "--days", "30"),
}
COMPLETION = {
    "_CANHAZGPU_COMPLETE": "bash_complete",
    "COMP_WORDS": "canhazgpu status --node a0",
    "COMP_CWORD": "3",
}
WITHOUT_HIREDIS = """
import sys
sys.modules["hiredis"] = None
from canhazgpu.cli.entry import main
sys.argv[0] = "canhazgpu"
sys.exit(main())
"""


@dataclass(frozen=True)
class CommandCost:
    """What one command cost: seconds, MiB, bytes; `status` is its exit status."""

    cpu_s: float
    wall_s: float
    peak_mib: float
    round_trips: int
    sent: int
    received: int
    status: int


@dataclass(frozen=True)
class Found:
    """What was measured with one number of nodes."""

    nodes: int
    bytes_per_node: float
    is_computed: bool
    bytes_by_key: dict[str, int]
    commands: dict[str, CommandCost]
    load: LoadResult | None


class Bench:
    """Measures clusters of different sizes with one node's days."""

    def __init__(self, directory: Path, seed: Seed, rounds: int, load_s: float) -> None:
        self._directory = directory
        self._seed = seed
        self._rounds = rounds
        self._load_s = load_s

    def measure(self, nodes: int) -> Found:
        """Fill a store with so many nodes and measure."""
        place = self._directory / f"nodes-{nodes}"
        with Server(place) as server:
            by_key = plant(server, self._seed)
            short_by = 0
            if nodes > WHOLE_HISTORY_NODES:
                from_ms = int((time.time() - SHORT_DAYS * 86400) * 1000)
                short_by = by_key["history"] - trim_history(server, from_ms)
            before = server.used_memory()
            fill(server, self._seed, range(1, nodes + 1))
            per_node = (server.used_memory() - before) / nodes + short_by
            _ask_for_nodes(server)
            config = place / "config.toml"
            config.write_text(CONFIG.format(socket=server.socket, bin=place))
            with CountingProxy(place / "proxy.sock", server.socket) as proxy:
                counted = place / "counted.toml"
                counted.write_text(CONFIG.format(socket=proxy.path, bin=place))
                commands = {
                    name: self._cost(words, config, counted, proxy)
                    for name, words in _rows().items()
                }
                load = self._load(server, nodes, counted, proxy) if self._load_s else None
            return Found(nodes, per_node, short_by > 0, by_key, commands, load)

    def _cost(
        self, words: tuple[str, ...], config: Path, counted: Path, proxy: CountingProxy
    ) -> CommandCost:
        taken = [_timed(words, config) for _ in range(self._rounds)]
        proxy.reset()
        _timed(words, counted)
        traffic = proxy.traffic
        return CommandCost(
            statistics.median(one[0] for one in taken),
            statistics.median(one[1] for one in taken),
            max(one[2] for one in taken),
            traffic.round_trips,
            traffic.sent,
            traffic.received,
            taken[-1][3],
        )

    def _load(self, server: Server, nodes: int, counted: Path, proxy: CountingProxy) -> LoadResult:
        proxy.record()
        _timed(COMMANDS["status --summary"], counted)
        return run_load(server, nodes, self._load_s, proxy.recorded())


def _rows() -> dict[str, tuple[str, ...]]:
    """Return the commands of this revision; what it lacks is left out."""
    helped = subprocess.run(
        [_program(), "status", "--help"], capture_output=True, text=True, check=True
    )
    rows = {
        name: words
        for name, words in COMMANDS.items()
        if "--stream" not in words or "--stream" in helped.stdout
    }
    if _has_hiredis():
        rows["status --json, no hiredis"] = ("-c", WITHOUT_HIREDIS, "status", "--json")
    return rows


def _timed(words: tuple[str, ...], config: Path) -> tuple[float, float, float, int]:
    """Return CPU and wall seconds, the highest memory in MiB, and the exit status."""
    environ = {"PATH": os.defpath, "CANHAZGPU_CONFIG": str(config), "COLUMNS": "120"}
    program = [sys.executable] if words[:1] == ("-c",) else [_program()]
    if not words:
        environ |= COMPLETION
    person = pwd.getpwnam(PERSON)
    began = time.perf_counter()
    child = subprocess.Popen(
        [*program, *words],
        env=environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        user=person.pw_uid if os.geteuid() == 0 else None,
    )
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    wall_s = time.perf_counter() - began
    return used.ru_utime + used.ru_stime, wall_s, used.ru_maxrss / 1024, child.returncode


def _program() -> str:
    return str(Path(sys.executable).with_name("canhazgpu"))


def _has_hiredis() -> bool:
    from importlib.util import find_spec  # noqa: PLC0415 - once

    return find_spec("hiredis") is not None


def _ask_for_nodes(server: Server) -> None:
    """Let the person hold GPUs for one job on two nodes."""
    person = pwd.getpwnam(PERSON) if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
    for name in ASKED_NODES:
        node = NodeLife(name, server.store)
        node.check()
        node.start(0, 2, ASKED_JOB, (person.pw_name, person.pw_uid))
        node.check()


def show(found: list[Found]) -> None:
    """Print the tables."""
    for one in found:
        marked = " (computed)" if one.is_computed else ""
        print(
            f"\n{one.nodes} nodes: {one.bytes_per_node / 1e6:.2f} MB a node{marked}; of one node:"
        )
        print("  " + ", ".join(f"{name} {size:,}" for name, size in one.bytes_by_key.items()))
        print(
            f"  {'command':26} {'CPU s':>7} {'above':>7} {'wall s':>7} {'MiB':>6}"
            f" {'trips':>6} {'sent':>11} {'received':>13}"
        )
        for name, cost in one.commands.items():
            above = cost.cpu_s - found[0].commands[name].cpu_s
            failed = f"  exit status {cost.status}" if cost.status else ""
            print(
                f"  {name:26} {cost.cpu_s:7.2f} {above:7.2f} {cost.wall_s:7.2f}"
                f" {cost.peak_mib:6.0f} {cost.round_trips:6} {cost.sent:11,}"
                f" {cost.received:13,}{failed}"
            )
        if one.load:
            _show_load(one.load)


def _show_load(load: LoadResult) -> None:
    sent = ", ".join(f"{count / load.took_s:.1f} {name}/s" for name, count in load.sent.items())
    print(f"  load for {load.took_s:.0f} s: {sent}")
    print(
        f"    server {load.server_share:.0%} of a core,"
        f" generator {load.generator_cpu_s / load.took_s:.0%}"
    )
    for name, values in sorted(load.latencies.items()):
        text = ", ".join(f"{key} {value / 1000:.2f} ms" for key, value in values.items())
        print(f"    {name:18} {text}")


def main(sizes: list[int], days: float, jobs: int, rounds: int, load_s: float) -> list[Found]:
    """Return what was measured with each number of nodes."""
    with tempfile.TemporaryDirectory(prefix="cluster-time-", dir=MEMORY) as name:
        directory = Path(name)
        directory.chmod(0o755)
        seed = lived_node(directory, days, jobs)
        bench = Bench(directory, seed, rounds, load_s)
        return [bench.measure(nodes) for nodes in sizes]


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
    parser.add_argument("--json", action="store_true")
    parser.add_argument("nodes", nargs="+", type=int)
    given = parser.parse_args()
    results = main(given.nodes, given.days, given.jobs, given.rounds, given.load)
    if given.json:
        print(json.dumps(as_data(results)))
    else:
        show(results)
