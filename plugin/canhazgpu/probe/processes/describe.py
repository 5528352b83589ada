"""What the node tells of the processes on its GPUs: owner, name, model, job and parents.

Each process and each parent is read once for a scan, however many GPUs and children it has. What
can be slow is asked for in the background, all at once: users' names, which a directory server may
hold, and command lines. What is not there in time stays unknown; a scan never waits longer for it.

Only the child that scans imports this module: the names of models are slow to import.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from canhazgpu.gpu.ml_model.detection import detect_model
from canhazgpu.gpu.scan import GpuProcess, GpuReading
from canhazgpu.node.users import user_name
from canhazgpu.probe.processes.cgroup_job import JobOfCgroup, no_job_of_cgroup
from canhazgpu.probe.processes.parallel_lookup import ParallelLookup
from canhazgpu.probe.processes.proc_files import (
    ProcessEntry,
    display_name,
    is_proc_mounted,
    read_arguments,
    read_process,
)
from canhazgpu.probe.processes.ps import owners_by_ps

MAX_ANCESTORS = 64
DEFAULT_WAIT_S = 1.0
"""Longest wait for users' names and command lines, all together."""


def describe_process(
    pid: int, memory_mb: int | None, job_of: JobOfCgroup = no_job_of_cgroup
) -> GpuProcess:
    """Return a process that holds a GPU, with all that the node tells of it.

    For several processes use `with_process_details`, which reads their parents once and waits once.
    """
    return replace(describe_processes([pid], job_of, DEFAULT_WAIT_S)[pid], memory_mb=memory_mb)


def with_process_details(
    gpus: Sequence[GpuReading],
    job_of: JobOfCgroup = no_job_of_cgroup,
    wait_s: float = DEFAULT_WAIT_S,
) -> tuple[GpuReading, ...]:
    """Return the readings with their processes described, of which pid and memory are known.

    Waits at most `wait_s` for what is slow; what is not there in time stays unknown.
    """
    pids = [process.pid for gpu in gpus for process in gpu.processes]
    known = describe_processes(pids, job_of, wait_s)
    return tuple(
        replace(
            gpu,
            processes=tuple(
                replace(known[process.pid], memory_mb=process.memory_mb)
                for process in gpu.processes
            ),
        )
        for gpu in gpus
    )


def describe_processes(
    pids: Iterable[int], job_of: JobOfCgroup, wait_s: float
) -> dict[int, GpuProcess]:
    """Return each process, its memory unknown; waits at most `wait_s` for what is slow."""
    wanted = list(dict.fromkeys(pids))
    if not wanted:
        return {}
    deadline = time.monotonic() + wait_s
    if is_proc_mounted():
        return _from_proc(wanted, job_of, deadline)
    return _from_ps(wanted, deadline)


@dataclass(frozen=True, slots=True)
class _ProcessAncestry:
    """A process on a GPU and its parents, the nearest first."""

    pid: int
    entry: ProcessEntry | None
    ancestors: tuple[int, ...]


def _from_proc(pids: Sequence[int], job_of: JobOfCgroup, deadline: float) -> dict[int, GpuProcess]:
    own = {pid: read_process(pid, owned=True) for pid in pids}
    users = ParallelLookup(
        _user_name_or_uid, {entry.uid for entry in own.values() if entry and entry.uid is not None}
    )
    entries = dict(own)
    families = [_ProcessAncestry(pid, own[pid], _ancestors(pid, entries)) for pid in pids]
    lines = {
        pid: line
        for pid, entry in entries.items()
        if entry and (line := entry.command_line) is not None
    }
    reading = ParallelLookup(lambda pid: read_arguments(lines[pid]), lines)
    arguments = reading.wait_until(deadline)
    names = users.wait_until(deadline)
    return {family.pid: _process(family, names, arguments, job_of) for family in families}


def _user_name_or_uid(uid: int) -> str:
    return user_name(uid) or str(uid)


def _ancestors(pid: int, entries: dict[int, ProcessEntry | None]) -> tuple[int, ...]:
    """Return the pids of the process's parents; reads those that are not in `entries` yet.

    A parent is never younger than its child: one that is has taken the pid of the real one.
    """
    found: list[int] = []
    child = entries[pid]
    while child is not None and child.parent_pid > 0 and len(found) < MAX_ANCESTORS:
        if child.parent_pid not in entries:
            entries[child.parent_pid] = read_process(child.parent_pid, owned=False)
        parent = entries[child.parent_pid]
        younger = parent is not None and parent.start_ticks > child.start_ticks
        if younger or child.parent_pid in (pid, *found):
            break
        found.append(child.parent_pid)
        child = parent
    return tuple(found)


def _process(
    family: _ProcessAncestry,
    names: Mapping[int, str],
    arguments: Mapping[int, tuple[str, ...]],
    job_of: JobOfCgroup,
) -> GpuProcess:
    entry = family.entry
    if entry is None:
        return GpuProcess(family.pid, None, None, None, None)
    return GpuProcess(
        pid=family.pid,
        uid=entry.uid,
        user=None if entry.uid is None else names.get(entry.uid, str(entry.uid)),
        name=display_name(entry.name, arguments.get(family.pid, ())) or None,
        memory_mb=None,
        model=detect_model([arguments.get(pid, ()) for pid in (family.pid, *family.ancestors)]),
        job=job_of(entry.cgroup),
        ancestors=family.ancestors,
    )


def _from_ps(pids: Sequence[int], deadline: float) -> dict[int, GpuProcess]:
    owners = owners_by_ps(pids)
    names = ParallelLookup(_user_name_or_uid, {uid for uid, _ in owners.values()}).wait_until(
        deadline
    )
    return {
        pid: GpuProcess(pid, uid, names.get(uid, str(uid)), name, None)
        for pid, (uid, name) in owners.items()
    } | {pid: GpuProcess(pid, None, None, None, None) for pid in pids if pid not in owners}
