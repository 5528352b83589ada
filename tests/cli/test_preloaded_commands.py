"""What the agent imports before it serves."""

from __future__ import annotations

import subprocess
import sys

OF_EXTRAS = ("prometheus_client", "starlette", "uvicorn")
PROGRAM = f"""
import sys
for name in {OF_EXTRAS}:
    sys.modules[name] = None  # as if it was not installed
from canhazgpu.agent.listener.preload import import_everything
from canhazgpu.cli.through_agent.runner import ClickRunner
import_everything()
ClickRunner().preload()
"""


def test_the_agent_needs_nothing_that_an_extra_brings() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-c", PROGRAM],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
