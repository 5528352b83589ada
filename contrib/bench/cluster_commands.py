"""The commands that cluster_time.py measures, and one run of each as somebody at a login host."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
import time
from pathlib import Path

PERSON = "games"
"""Who asks what is theirs."""
ASKED_NODES = ("a0001", "a0002")
ASKED_JOB = 990_000_001
ASKED_RUN = "run:of-another"
COMMANDS: dict[str, tuple[str, ...]] = {
    "status --summary": ("status", "--summary"),
    "status --free --summary": ("status", "--free", "--summary"),
    "queue": ("queue",),
    "admin nodes": ("admin", "nodes"),
    "status": ("status",),
    "status --free": ("status", "--free"),
    "status --state reserved": ("status", "--state", "reserved"),
    "status --user X": ("status", "--user", PERSON),
    "status --model X": ("status", "--model", "no such model"),
    "status --partition X --state unknown": ("status", "--partition", "gpu", "--state", "unknown"),
    "status --json": ("status", "--json"),
    "status --free --json": ("status", "--free", "--json"),
    "status --json --stream": ("status", "--json", "--stream"),
    "status --me": ("status", "--me"),
    "status --node X": ("status", "--node", ASKED_NODES[0]),
    "explain JOB": ("explain", str(ASKED_JOB)),
    "explain run:X": ("explain", ASKED_RUN),
    "completion of a node": (),
    "events --since 5m": ("events", "--since", "5m"),
    "report --days 30": ("report", "--days", "30"),
    "report --days 30 --json": ("report", "--days", "30", "--json"),
}
FULL_COMMANDS: dict[str, tuple[str, ...]] = {
    "status --free, 1 of 20 nodes free": ("status", "--free"),
    "status --free --json, 1 of 20 free": ("status", "--free", "--json"),
}
"""Of a cluster on most nodes of which no GPU is free."""
COMPLETION = {
    "_CANHAZGPU_COMPLETE": "bash_complete",
    "COMP_WORDS": "canhazgpu status --node a0",
    "COMP_CWORD": "3",
}
WITHOUT_HIREDIS = """
import sys
sys.modules["hiredis"] = None
from canhazgpu.cli.entry import main
sys.argv[0] = "canhazgpu"
sys.exit(main())
"""


def rows_of(commands: dict[str, tuple[str, ...]], only: list[str]) -> dict[str, tuple[str, ...]]:
    """Return those of the commands that are asked for and that this revision has."""
    helped = subprocess.run(
        [_program(), "status", "--help"], capture_output=True, text=True, check=True
    )
    rows = {
        name: words
        for name, words in commands.items()
        if "--stream" not in words or "--stream" in helped.stdout
    }
    if "status --json" in rows and _has_hiredis():
        rows["status --json, no hiredis"] = ("-c", WITHOUT_HIREDIS, "status", "--json")
    return {
        name: words for name, words in rows.items() if not only or any(one in name for one in only)
    }


def timed_command(words: tuple[str, ...], config: Path) -> tuple[float, float, float, int]:
    """Return CPU and wall seconds, the highest memory in MiB, and the exit status."""
    environ = {"PATH": os.defpath, "CANHAZGPU_CONFIG": str(config), "COLUMNS": "120"}
    program = [sys.executable] if words[:1] == ("-c",) else [_program()]
    if not words:
        environ |= COMPLETION
    person = pwd.getpwnam(PERSON)
    began = time.perf_counter()
    child = subprocess.Popen(
        [*program, *words],
        env=environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        user=person.pw_uid if os.geteuid() == 0 else None,
    )
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    wall_s = time.perf_counter() - began
    return used.ru_utime + used.ru_stime, wall_s, used.ru_maxrss / 1024, child.returncode


def _program() -> str:
    return str(Path(sys.executable).with_name("canhazgpu"))


def _has_hiredis() -> bool:
    from importlib.util import find_spec  # noqa: PLC0415 - once

    return find_spec("hiredis") is not None
