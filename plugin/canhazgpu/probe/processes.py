"""Who owns a process and what it is called, from /proc or, without it, from ps."""

from __future__ import annotations

import pwd
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from canhazgpu.gpu.scan import GpuProcess

PROC = Path("/proc")
PS_TIMEOUT_S = 2.0

JobOf = Callable[[str], str | None]
"""Takes the text of /proc/PID/cgroup; returns the scheduler's job in it, ``slurm:123``, if any."""


def no_job(_cgroup: str) -> str | None:
    """Find no job: where the node has no scheduler."""
    return None


@dataclass(frozen=True, slots=True)
class ProcessFacts:
    """What the node tells of a process; None where it does not."""

    uid: int | None = None
    name: str | None = None


UNKNOWN_PROCESS = ProcessFacts()


def process_facts(pid: int) -> ProcessFacts:
    """Return the process's real uid and name.

    A process that is gone, in another pid namespace, or hidden by ``hidepid`` has neither.
    """
    try:
        return _parsed((PROC / str(pid) / "status").read_text("utf-8", "replace"))
    except (FileNotFoundError, ProcessLookupError):
        if (PROC / "self").exists():
            return UNKNOWN_PROCESS
        return _from_ps(pid)
    except OSError:
        return UNKNOWN_PROCESS


def described(pid: int, memory_mb: int | None, job_of: JobOf = no_job) -> GpuProcess:
    """Return a process that holds a GPU, with all that the node tells of it."""
    facts = process_facts(pid)
    return GpuProcess(
        pid=pid, uid=facts.uid, user=user_name(facts.uid), name=facts.name, memory_mb=memory_mb
    )


def user_name(uid: int | None) -> str | None:
    """Return the user's name, the uid as digits for a user without one, None for no uid."""
    if uid is None:
        return None
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return str(uid)


def _parsed(status: str) -> ProcessFacts:
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    uids = fields.get("Uid", "").split()
    return ProcessFacts(int(uids[0]) if uids else None, fields.get("Name") or None)


def _from_ps(pid: int) -> ProcessFacts:
    command = ["/bin/ps", "-o", "uid=,comm=", "-p", str(pid)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PS_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return UNKNOWN_PROCESS
    uid, _, name = done.stdout.strip().partition(" ")
    return ProcessFacts(int(uid), name.strip() or None) if uid.isdecimal() else UNKNOWN_PROCESS
