#!/usr/bin/python3
"""Time the ledger over a private server: reserve and release, look, and how soon a waiter wakes.

    ledger_time.py PYTHON [OTHER_SOURCES]

PYTHON is an interpreter that has canhazgpu installed. OTHER_SOURCES is the folder ``plugin`` of
another revision, to be compared: both are measured in turn, round by round, on the same server.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROUNDS = 8

MEASURE = """
import json, sys, threading, time
from canhazgpu.config.schema import StoreConfig
from canhazgpu.gpu.scan import GpuProcess, GpuReading, Scan
from canhazgpu.ledger.store.connect import Role
from canhazgpu.ledger.port import Observation
from canhazgpu.ledger.store.ledger import RedisLedger
from canhazgpu.ledger.values import Claim

TURNS = 500
store = StoreConfig(url=sys.argv[1])
ledger = RedisLedger(store, Role.WRITE)
processes = tuple(GpuProcess(pid, 1000, "ann", "python3", 5000) for pid in range(4))
gpus = tuple(GpuReading(i, f"GPU-{i}", i, "H100", 0, 80000, processes) for i in range(8))
node = sys.argv[2]
scan = Scan(node, 0.0, 0.0, gpus)

def reserve_and_release(turn):
    claim = Claim(f"job:c:{turn}:0", "slurm", "ann", 1000, str(turn), "train", boot_id="b")
    ledger.reserve_count(claim, 2, Observation(scan, 0.0, frozenset(["GPU-7"])))
    ledger.release(node, claim.owner, "end")

def rate(act):
    act(-1)
    began = time.perf_counter()
    for turn in range(TURNS):
        act(turn)
    return TURNS / (time.perf_counter() - began)

def wake_ms():
    took = []
    for turn in range(100):
        last, ready = ledger.wait_for_event(node, "", 0), threading.Event()
        def wait():
            ready.set()
            ledger.wait_for_event(node, last, 60)
            took.append(time.perf_counter() - began)
        thread = threading.Thread(target=wait)
        thread.start()
        ready.wait()
        time.sleep(0.02)
        began = time.perf_counter()
        ledger.quarantine(node, f"GPU-{turn}", "bench", "bench")
        thread.join()
    took.sort()
    return [took[50] * 1000, took[-1] * 1000]

print(json.dumps({
    "reserve+release": rate(reserve_and_release),
    "read_nodes": rate(lambda turn: ledger.read_nodes([node])),
    "wake_ms": wake_ms(),
}))
"""


def main(python: str, other: str | None) -> None:
    """Print the rates of each revision, and their ratio."""
    with tempfile.TemporaryDirectory(prefix="ledger-time-") as directory:
        socket = f"{directory}/s"
        binary = shutil.which("redis-server") or sys.exit("no redis-server on this machine")
        options = {"port": "0", "unixsocket": socket, "save": "", "dir": directory}
        arguments = [text for name, value in options.items() for text in (f"--{name}", value)]
        server = subprocess.Popen([binary, *arguments], stdout=subprocess.DEVNULL)
        try:
            while not Path(socket).exists():
                time.sleep(0.01)
            found = measure(python, other, f"unix://{socket}")
        finally:
            server.kill()
            server.wait()
    for name in ("reserve+release", "read_nodes"):
        rates = {
            which: statistics.median(one[name] for one in rows) for which, rows in found.items()
        }
        text = ", ".join(f"{which} {rate:.0f}/s" for which, rate in rates.items())
        print(f"{name:16} {text}, ratio {rates['this'] / rates.get('other', rates['this']):.2f}")
    median = statistics.median(one["wake_ms"][0] for one in found["this"])
    longest = max(one["wake_ms"][1] for one in found["this"])
    print(f"wake             {median:.2f} ms (median), {longest:.2f} ms (longest)")


def measure(python: str, other: str | None, url: str) -> dict[str, list[dict[str, Any]]]:
    """Return what each revision measured, one value for each round."""
    sources = {"this": ""} | ({"other": other} if other else {})
    found: dict[str, list[dict[str, Any]]] = {which: [] for which in sources}
    for number in range(ROUNDS):
        for which, path in sources.items():
            # Sources go before what is installed.
            environment = os.environ | ({"PYTHONPATH": path} if path else {})
            done = subprocess.run(
                [python, "-c", MEASURE, url, f"{which}-{number}"],
                env=environment,
                stdout=subprocess.PIPE,
                check=True,
            )
            found[which].append(json.loads(done.stdout))
    return found


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None)
