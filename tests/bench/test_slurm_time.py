"""The bench of jobs on a real Slurm: it runs to its end, and what it counts adds up."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from clusters.gpu_cluster import installed_venv

pytestmark = [pytest.mark.slow, pytest.mark.slurm]
BENCH = Path(__file__).parents[2] / "contrib" / "bench" / "slurm_time.py"
TINY = ("--rounds", "1", "--jobs", "2", "--waiters", "1", "--json")


def test_each_row_is_measured_and_the_agent_answers_every_prolog() -> None:
    done = subprocess.run(
        [sys.executable, BENCH, installed_venv(), *TINY],
        stdout=subprocess.PIPE,
        text=True,
        timeout=600,
        check=True,
    )
    found = json.loads(done.stdout)
    for row in ("srun", "burst"):
        assert set(found[row]) == {"no hooks", "empty hooks", "canhazgpu"}
        assert all(len(seconds) == 1 for seconds in found[row].values())
    assert min(seconds[0] for seconds in found["burst"].values()) > 1.0
    assert len(found["prologs"]) == found["granted"] == 8
    assert found["waiters"] == 1
    assert found["not through the agent"] == found["decided alone"] == 0
