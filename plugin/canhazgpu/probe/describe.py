"""What the node tells of the processes on its GPUs: owner, name, model, job and parents.

Each process and each parent is read once for a scan, however many GPUs and children it has. What
can be slow is asked for in the background, all at once: users' names, which a directory server may
hold, and command lines. What is not there in time stays unknown; a scan never waits longer for it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from canhazgpu.gpu.model_name import model_of
from canhazgpu.gpu.scan import GpuProcess
from canhazgpu.node.users import user_name
from canhazgpu.probe.gather import Gathering
from canhazgpu.probe.proc_files import (
    ProcEntry,
    is_mounted,
    known_name,
    read_arguments,
    read_entry,
)
from canhazgpu.probe.processes import JobOf
from canhazgpu.probe.ps import owners_by_ps

MAX_ANCESTORS = 64


def describe_all(pids: Iterable[int], job_of: JobOf, wait_s: float) -> dict[int, GpuProcess]:
    """Return each process, its memory unknown; waits at most `wait_s` for what is slow."""
    wanted = list(dict.fromkeys(pids))
    if not wanted:
        return {}
    deadline = time.monotonic() + wait_s
    if is_mounted():
        return _from_proc(wanted, job_of, deadline)
    return _from_ps(wanted, deadline)


@dataclass(frozen=True, slots=True)
class _Family:
    """A process on a GPU and its parents, the nearest first."""

    pid: int
    entry: ProcEntry | None
    ancestors: tuple[int, ...]


def _from_proc(pids: Sequence[int], job_of: JobOf, deadline: float) -> dict[int, GpuProcess]:
    own = {pid: read_entry(pid, owned=True) for pid in pids}
    users = Gathering(
        _name_of, {entry.uid for entry in own.values() if entry and entry.uid is not None}
    )
    entries = dict(own)
    families = [_Family(pid, own[pid], _ancestors(pid, entries)) for pid in pids]
    lines = {
        pid: line
        for pid, entry in entries.items()
        if entry and (line := entry.command_line) is not None
    }
    reading = Gathering(lambda pid: read_arguments(lines[pid]), lines)
    arguments = reading.until(deadline)
    names = users.until(deadline)
    return {family.pid: _process(family, names, arguments, job_of) for family in families}


def _name_of(uid: int) -> str:
    return user_name(uid) or str(uid)


def _ancestors(pid: int, entries: dict[int, ProcEntry | None]) -> tuple[int, ...]:
    """Return the pids of the process's parents; reads those that are not in `entries` yet.

    A parent is never younger than its child: one that is has taken the pid of the real one.
    """
    found: list[int] = []
    child = entries[pid]
    while child is not None and child.parent > 0 and len(found) < MAX_ANCESTORS:
        if child.parent not in entries:
            entries[child.parent] = read_entry(child.parent, owned=False)
        parent = entries[child.parent]
        younger = parent is not None and parent.started > child.started
        if younger or child.parent in (pid, *found):
            break
        found.append(child.parent)
        child = parent
    return tuple(found)


def _process(
    family: _Family,
    names: Mapping[int, str],
    arguments: Mapping[int, tuple[str, ...]],
    job_of: JobOf,
) -> GpuProcess:
    entry = family.entry
    if entry is None:
        return GpuProcess(family.pid, None, None, None, None)
    return GpuProcess(
        pid=family.pid,
        uid=entry.uid,
        user=None if entry.uid is None else names.get(entry.uid, str(entry.uid)),
        name=known_name(entry.name, arguments.get(family.pid, ())) or None,
        memory_mb=None,
        model=model_of([arguments.get(pid, ()) for pid in (family.pid, *family.ancestors)]),
        job=job_of(entry.cgroup),
        ancestors=family.ancestors,
    )


def _from_ps(pids: Sequence[int], deadline: float) -> dict[int, GpuProcess]:
    owners = owners_by_ps(pids)
    names = Gathering(_name_of, {uid for uid, _ in owners.values()}).until(deadline)
    return {
        pid: GpuProcess(pid, uid, names.get(uid, str(uid)), name, None)
        for pid, (uid, name) in owners.items()
    } | {pid: GpuProcess(pid, None, None, None, None) for pid in pids if pid not in owners}
