"""The bench of people's commands: it runs to its end, and no run fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from clusters.gpu_cluster import installed_venv
from plugins.ci_skips import Require

pytestmark = pytest.mark.slow
BENCH = Path(__file__).parents[2] / "contrib" / "bench" / "run_time.py"
TINY = ("--rounds", "1", "--slow-rounds", "1", "--runs", "9", "--kept", "2", "--json")


def test_each_row_is_measured_with_the_agent_and_without_it(require: Require) -> None:
    require(os.geteuid() == 0, "only root may run an agent")
    done = subprocess.run(
        [sys.executable, BENCH, *TINY, installed_venv()],
        stdout=subprocess.PIPE,
        text=True,
        timeout=280,
        check=True,
    )
    found = json.loads(done.stdout)
    commands = found.pop("commands, ms")
    assert {name.partition(",")[0] for name in commands} == {
        "python3 -I -c pass", "--version", "status", "run --gpus 1 -- true",
    }  # fmt: skip
    assert all(wall > 0 and cpu > 0 for ((wall, cpu),) in commands.values())
    assert len(found) == 4
    for by_host in found.values():
        assert set(by_host) == {"agent", "no agent"}
        assert [failed for ((_, failed),) in by_host.values()] == [0, 0]
