"""Find and end processes by pid and start time, so that a reused pid is never hit."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

PROC = Path("/proc")
POLL_S = 0.02
RAREST = 5


@dataclass(frozen=True, slots=True)
class Process:
    """A process as it was seen; `started` is clock ticks since boot and tells reused pids apart."""

    pid: int
    started: int
    parent: int = field(default=0, compare=False)
    at_terminal: bool = field(default=False, compare=False)

    def alive(self) -> bool:
        return find_process(self.pid) == self

    def signal(self, number: signal.Signals) -> None:
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


def find_process(pid: int) -> Process | None:
    """Return the running process with this pid; None for none and for a zombie."""
    fields = _stat(pid)
    if fields is None or fields[0] in "ZX":
        return None
    return Process(
        pid, started=int(fields[19]), parent=int(fields[1]), at_terminal=fields[4] != "0"
    )


def executable_name(pid: int) -> str:
    """Return the name of the program a process runs; empty when it cannot be read."""
    try:
        return (PROC / str(pid) / "exe").readlink().name
    except OSError:
        return ""


def running_processes() -> list[Process]:
    pids = (int(entry.name) for entry in PROC.iterdir() if entry.name.isdecimal())
    return [process for process in map(find_process, pids) if process is not None]


def process_environment(pid: int) -> dict[str, str]:
    """Return the environment a process was started with; empty when it cannot be read."""
    try:
        raw = (PROC / str(pid) / "environ").read_bytes()
    except OSError:
        return {}
    entries = (item.partition(b"=") for item in raw.split(b"\0") if item)
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in entries}


def uses_directory(pid: int, directory: Path) -> bool:
    """Whether a process has its working directory or an open file under `directory`."""
    base = PROC / str(pid)
    links = [base / "cwd"]
    with contextlib.suppress(OSError):
        links += (base / "fd").iterdir()
    return any(_link_is_below(link, directory) for link in links)


def self_and_ancestors() -> set[int]:
    """Return this process and its ancestors, which are never to be ended."""
    line, pid = set[int](), os.getpid()
    while pid > 0:
        line.add(pid)
        process = find_process(pid)
        pid = 0 if process is None else process.parent
    return line


def terminate_all(victims: Iterable[Process], grace_s: float) -> None:
    """Ask with SIGTERM; after `grace_s` insist with SIGKILL and wait until all are gone."""
    remaining = list(victims)
    for process in remaining:
        process.signal(signal.SIGTERM)
    if not wait_until(lambda: not any(process.alive() for process in remaining), grace_s):
        for process in remaining:
            process.signal(signal.SIGKILL)
        wait_until(lambda: not any(process.alive() for process in remaining), grace_s)


def wait_until(reached: Callable[[], bool], timeout_s: float, poll_s: float = POLL_S) -> bool:
    """Poll until `reached()`, ever more rarely; False when the time is over."""
    deadline = time.monotonic() + timeout_s
    pause_s = poll_s
    while not reached():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.3, RAREST * poll_s)
    return True


def _stat(pid: int) -> list[str] | None:
    """Return the fields of /proc/PID/stat from the third on: state, ppid, pgrp, session, tty, …

    The second, the command, is in parentheses and may hold anything (proc(5)).
    """
    try:
        text = (PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()


def _link_is_below(link: Path, directory: Path) -> bool:
    try:
        target = link.readlink()
    except OSError:
        return False
    return target.is_relative_to(directory)
