"""`make demo` shows what it says, checks it, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from demo_cluster import Layout, find_leftovers, missing_requirements

DEMO = Path(__file__).parents[2] / "contrib" / "demo" / "demo.py"
# One that every Unix user may execute, which the tests' own need not be.
PYTHON = os.environ.get("PYTHON", "/usr/bin/python3")


@pytest.mark.slurm
def test_the_demonstration_holds_and_leaves_nothing() -> None:
    if missing := missing_requirements():
        pytest.skip(f"a private Slurm needs {', '.join(missing)}")
    done = subprocess.run(
        [PYTHON, DEMO, "run"], check=False, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stdout + done.stderr
    directory = re.search(r"everything is in (\S+)", done.stdout)
    assert directory is not None, done.stdout
    assert not Path(directory[1]).exists()
    assert not find_leftovers(Layout(Path(directory[1])))
