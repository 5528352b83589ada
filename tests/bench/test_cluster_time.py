"""The bench of large clusters: it runs to its end, and every command answers."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from clusters.gpu_cluster import installed_venv
from plugins.ci_skips import Require

pytestmark = pytest.mark.slow
BENCH = Path(__file__).parents[2] / "contrib" / "bench" / "cluster_time.py"
TINY = ("--days", "0.2", "--jobs", "20", "--rounds", "1", "--load", "1", "--json", "3")


def test_each_size_is_measured(require: Require) -> None:
    require(shutil.which("redis-server") is not None, "a Redis server is needed")
    require(any(Path("/usr/lib").glob("*/faketime/libfaketime.so.1")), "libfaketime is needed")
    done = subprocess.run(
        [installed_venv() / "bin" / "python", BENCH, *TINY],
        stdout=subprocess.PIPE,
        text=True,
        timeout=280,
        check=True,
    )
    found = json.loads(done.stdout)

    assert [one["nodes"] for one in found] == [3]
    for one in found:
        assert one["bytes_per_node"] > 1000 < one["bytes_by_key"]["scan"]
        assert not one["is_computed"]
        # All commands found what they asked for.
        assert {cost["status"] for cost in one["commands"].values()} == {0}
        # On a busy machine a completion has nothing after its second.
        one["commands"].pop("completion of a node")
        assert all(cost["received"] > 0 < cost["round_trips"] for cost in one["commands"].values())
        assert set(one["load"]["sent"]) == {"health checks", "job starts", "job ends", "status"}
        assert one["load"]["server_cpu_s"] > 0 < one["load"]["latencies"]["evalsha"]["p99"]
        # All nodes are read.
        received = {name: cost["received"] for name, cost in one["commands"].items()}
        assert received["status --json"] > 1.5 * received["status --node X"]
