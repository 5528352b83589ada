"""What a hook of a job without GPUs does not import, so that such jobs start as fast as before."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HEAVY = {"redis", "pynvml", "click", "jinja2"}


def imported(hook: str, state_dir: Path) -> set[str]:
    """Run a hook of a job without GPUs; returns the top-level names of what it imported."""
    done = subprocess.run(
        [sys.executable, "-I", "-X", "importtime", "-m", f"canhazgpu.{hook}.main"],
        env={
            "SLURM_JOB_ID": "12",
            "SLURM_JOB_UID": "1000",
            "SLURM_CONF": str(state_dir / "slurm.conf"),
            "CANHAZGPU_NODE_STATE_DIR": str(state_dir / "run"),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    assert len(lines) == len(done.stderr.splitlines()), done.stderr
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


@pytest.mark.parametrize(
    ("hook", "never"), [("prolog", HEAVY | {"dataclasses", "json"}), ("epilog", HEAVY)]
)
def test_a_job_without_gpus_costs_no_heavy_import(
    hook: str, never: set[str], tmp_path: Path
) -> None:
    names = imported(hook, tmp_path)
    assert "canhazgpu" in names
    assert names & never == set()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("node", ["slurm"], indirect=True)
@pytest.mark.parametrize("hook", ["prolog.main", "epilog.main", "epilog.health_check"])
def test_a_hook_that_cannot_say_anything_is_no_fault_of_the_node(node: Any, hook: str) -> None:
    node.server.kill()
    (node.files / "config.toml").write_text("nonsense")
    program = 'exec "$0" -I -m "$1" >&- 2>&-'
    done = subprocess.run(
        ["sh", "-c", program, sys.executable, f"canhazgpu.{hook}"],
        env=node.environ(),
        timeout=60,
        check=False,
    )
    assert done.returncode == 0


@pytest.mark.parametrize("node", ["slurm"], indirect=True)
def test_the_scan_is_under_way_before_the_rest_is_imported_and_it_is_the_one_that_counts(
    node: Any,
) -> None:
    program = """
import sys
from canhazgpu.probe.node_probe import NodeProbe
start = NodeProbe.start
def told(probe):
    print("canhazgpu.ledger.fallback_ledger" in sys.modules)
    return start(probe)
NodeProbe.start = told
from canhazgpu.prolog.main import main
main()
"""
    done = node.new_python("-c", program)
    # The second is the look at what was granted.
    assert (done.returncode, done.stdout, done.stderr) == (0, "False\nTrue\n", "")
    assert len(node.held()) == 2


@pytest.mark.parametrize("node", ["slurm"], indirect=True)
def test_a_fault_before_anything_has_begun_is_told_and_drains_nothing(node: Any) -> None:
    program = """
from canhazgpu.schedulers.slurm import early
def load(environ):
    raise RuntimeError("no such luck")
early.load = load
from canhazgpu.prolog.main import main
main()
"""
    done = node.new_python("-c", program)
    assert (done.returncode, done.stdout) == (0, "")
    assert "RuntimeError: no such luck (please report this)" in done.stderr
