"""Whole soaks, short ones: a fixed seed keeps all promises, and what is taken out is found.

What was taken out and is not found would mean that a soak without a finding says nothing.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from simulated_driver import install_driver

from canhazgpu_soak.judge import ON_A_ROGUE, TWO_HOLDERS
from canhazgpu_soak.report import VIOLATIONS

ROOT = Path(__file__).parents[2]
SOAK = ROOT / "contrib" / "soak" / "soak.py"
# Others use the machine while the suite runs.
HOGS = ("--hogs-per-core", "2")
LIMIT_S = 900
pytestmark = [
    pytest.mark.slow,
    pytest.mark.slurm,
    pytest.mark.timeout(LIMIT_S + 60),
]


def soak(tmp_path: Path, *options: str) -> tuple[int, dict[str, int], str]:
    """Run a soak; return its status, what its table says of each violation, and all of it."""
    logs = ("--keep-logs", str(tmp_path / "logs"))
    driver = ("--driver", str(install_driver(tmp_path / "driver").parent))
    command = [sys.executable, str(SOAK), sys.prefix, *HOGS, *logs, *driver, *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    rows = (line.strip().rpartition(" ") for line in done.stdout.splitlines())
    counts = {name.strip(): number for name, _, number in rows if name.strip() in VIOLATIONS}
    assert set(counts) == set(VIOLATIONS), done.stdout + done.stderr
    return done.returncode, {name: int(number) for name, number in counts.items()}, done.stdout


def test_all_promises_are_kept(tmp_path: Path) -> None:
    status, counts, text = soak(tmp_path, "--minutes", "1.5", "--seed", "15")
    assert (status, set(counts.values())) == (0, {0}), text


def test_delays_alone_break_nothing(tmp_path: Path) -> None:
    delays = ("--weaken", "slow-book,slow-grant", "--rogue-every", "0.7")
    status, counts, text = soak(tmp_path, "--minutes", "0.5", "--seed", "w2", *delays)
    assert (counts[TWO_HOLDERS], counts[ON_A_ROGUE]) == (0, 0), text
    assert status in (0, 1), text


@pytest.mark.parametrize(
    ("found", "options"),
    [
        pytest.param(TWO_HOLDERS, ("--weaken", "slow-book,no-lock"), id="no lock"),
        pytest.param(TWO_HOLDERS, ("--only", "ledger tampered"), id="a tampered ledger"),
        pytest.param(
            ON_A_ROGUE,
            ("--weaken", "slow-grant,no-second-look", "--rogue-every", "0.7"),
            id="no second look",
        ),
    ],
)
def test_what_is_taken_out_is_found(tmp_path: Path, found: str, options: tuple[str, ...]) -> None:
    only = () if "--only" in options else ("--only", "store killed")
    # On a busy machine it takes minutes until the moment that shows it.
    until = ("--minutes", "5", "--seed", "w1", "--until-found", found)
    status, counts, text = soak(tmp_path, *until, *only, *options)
    assert (status, counts[found] > 0) == (1, True), text
