"""What a program imports while it runs: the names, apart for the program and what it forks."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

RECORD = """
import os, sys

class Recorder:
    def find_spec(name, path=None, target=None):
        # Opened anew each time: a forked process closes what it inherits.
        number = os.open(RECORD, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        os.write(number, f"{os.getpid()} {name}\\n".encode())
        os.close(number)

RECORD, *sys.argv = sys.argv[1:]
sys.meta_path.insert(0, Recorder)
with open(sys.argv[0]) as _stream:
    _script = _stream.read()
exec(compile(_script, sys.argv[0], "exec"))
"""
"""Runs an installed console script under a finder that finds nothing and writes down every name."""


class Imports(NamedTuple):
    """The modules that a program looked for, and those that each process it forked did."""

    status: int
    output: str
    program: frozenset[str]
    forked: tuple[frozenset[str], ...]


def recorded_imports(
    script: str, arguments: Sequence[str], environ: Mapping[str, str], record: Path
) -> Imports:
    """Run a console script of the installed wheel; `record` is the file to write names into."""
    record.unlink(missing_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-I", "-c", RECORD, str(record), str(console_script(script)), *arguments],
        env=dict(environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    output, _ = process.communicate(timeout=60)
    names: dict[int, set[str]] = {process.pid: set()}
    for line in record.read_text().splitlines() if record.exists() else ():
        pid, _, name = line.partition(" ")
        names.setdefault(int(pid), set()).add(name)
    program = frozenset(names.pop(process.pid))
    return Imports(process.returncode, output, program, tuple(map(frozenset, names.values())))


def console_script(name: str) -> Path:
    """Return where the wheel's installation put the script; a path stays what it is."""
    return Path(sys.executable).parent / name
