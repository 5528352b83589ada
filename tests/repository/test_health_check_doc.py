"""The scripts in docs/health-check.md do what the text around them says."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REPORT = 'GPUS CRITICAL - n1: it\'s "bad" $(touch /nonexistent/x)\nGPU 0: more'


def script(language: str) -> str:
    text = (ROOT / "docs/health-check.md").read_text("utf-8")
    found = re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert len(found) == 1
    return str(found[0])


def program(directory: Path, name: str, body: str) -> None:
    (directory / name).write_text(f"#!/bin/sh\n{body}\n")
    (directory / name).chmod(0o755)


def run(directory: Path, code: int, state: str, text: str) -> str:
    """Run the script where canhazgpu ends with that code; return what it asked for."""
    asked = directory / "asked"
    program(directory, "canhazgpu", f'printf "%s\\n" "$REPORT"; exit {code}')
    program(directory, "sinfo", f"echo {state}")
    program(directory, "scontrol", f'printf "<%s>" "$@" >> {asked}')
    environ = {
        "SLURMD_NODENAME": "n1",
        "REPORT": REPORT,
        "PATH": f"{directory}:{os.environ['PATH']}",
    }
    done = subprocess.run(
        ["bash", "-c", text], env=environ, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    return done.stdout + (asked.read_text() if asked.exists() else "")


@pytest.mark.parametrize(
    ("code", "state", "drained"),
    [(2, "idle", True), (2, "drained", False), (2, "draining", False)]
    + [(code, "idle", False) for code in (0, 1, 3, 124)],
)
def test_slurms_program_drains_an_unhealthy_node_once(
    tmp_path: Path, code: int, state: str, drained: bool
) -> None:
    text = script("sh").replace("PATH=/usr/local/bin", f"PATH={tmp_path}:/usr/local/bin")

    asked = run(tmp_path, code, state, text)

    reason = REPORT.splitlines()[0]
    assert asked == (f"<update><NodeName=n1><State=DRAIN><Reason={reason}>" if drained else "")


@pytest.mark.parametrize(
    ("code", "fails"), [(0, False), (1, False), (2, True), (3, True), (127, True)]
)
def test_nhcs_check_fails_with_the_first_line(tmp_path: Path, code: int, fails: bool) -> None:
    # NHC's die reports the text and marks the node offline.
    text = f'die() {{ shift; echo "$*"; }}\n{script("bash")}\ncheck_canhazgpu --publish; echo $?'

    said = run(tmp_path, code, "idle", text).splitlines()

    assert said[-1] == str(int(fails))
    assert said[:-1] == ([f"check_canhazgpu:  {REPORT.splitlines()[0]}"] if fails else [])
