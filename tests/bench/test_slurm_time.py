"""The bench of jobs on a real Slurm: it runs to its end, and what it counts adds up."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
from clusters.gpu_cluster import installed_venv

BENCH = Path(__file__).parents[2] / "contrib" / "bench" / "slurm_time.py"
TINY = ("--rounds", "1", "--bursts", "1", "--jobs", "2", "--waiters", "1", "--json")


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCH.parent))
    return import_module("slurm_time")


@pytest.mark.parametrize(
    ("rounds", "outside"),
    # Sign test: at most 2.5 % of each side are left out.
    [(1, 0), (5, 0), (6, 0), (9, 1), (20, 5)],
)
def test_a_ratio_has_an_interval(bench: ModuleType, rounds: int, outside: int) -> None:
    """Each round is divided by itself, so a slow round changes nothing."""
    others = [10.0 * (turn + 1) for turn in range(rounds)]
    seconds = [other * (1 + turn / 100) for turn, other in enumerate(others)]
    median, low, high = bench.ratios(seconds, others)
    assert median == pytest.approx(1 + (rounds - 1) / 200)
    assert low == pytest.approx(1 + outside / 100)
    assert high == pytest.approx(1 + (rounds - 1 - outside) / 100)


def test_each_round_begins_with_another(bench: ModuleType) -> None:
    class Idle:
        def wait_nodes_idle(self) -> None: ...

    slurms = {name: Idle() for name in ("a", "b", "c")}
    order: list[str] = []
    names = {id(one): name for name, one in slurms.items()}
    found = bench.measure(slurms, 2, lambda one: order.append(names[id(one)]) or 1.0)
    assert "".join(order) == "abcbcacab"
    assert found == {name: [1.0, 1.0] for name in slurms}


@pytest.mark.slow
@pytest.mark.slurm
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
