"""Add user, name, model, job and parents to the processes on the GPUs.

Each process and each parent is read once for a scan, however many GPUs and children it has. Two
lookups can be slow and run in parallel threads: users' names, which may come from a directory
server, and command lines. What is not found in time stays unknown.

Only the child that scans imports this module, because the detection of models is slow to import.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.gpu.ml_model.detection import detect_model
from canhazgpu.gpu.scan import GpuProcess, GpuReading
from canhazgpu.node.users import user_name
from canhazgpu.probe.processes.cgroup_job import JobOfCgroup
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


def with_process_details(
    gpus: Sequence[GpuReading], job_of: JobOfCgroup, wait_s: float
) -> tuple[GpuReading, ...]:
    """Return the readings, whose processes have pid and memory only, with all details.

    Waits at most `wait_s` for the slow lookups; what is not found in time stays unknown.
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
        if gpu.processes
        else gpu
        for gpu in gpus
    )


def describe_processes(
    pids: Iterable[int], job_of: JobOfCgroup, wait_s: float
) -> dict[int, GpuProcess]:
    """Return the processes by pid, without memory; wait at most `wait_s` for the slow lookups."""
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
    ancestries = [_ProcessAncestry(pid, own[pid], _ancestors(pid, entries)) for pid in pids]
    lines = {
        pid: line
        for pid, entry in entries.items()
        if entry and (line := entry.command_line) is not None
    }
    reading = ParallelLookup(lambda pid: read_arguments(lines[pid]), lines)
    arguments = reading.wait_until(deadline)
    names = users.wait_until(deadline)
    return {ancestry.pid: _process(ancestry, names, arguments, job_of) for ancestry in ancestries}


def _user_name_or_uid(uid: int) -> str:
    return user_name(uid) or str(uid)


def _ancestors(pid: int, entries: dict[int, ProcessEntry | None]) -> tuple[int, ...]:
    """Return the pids of the process's parents; add those not in `entries` yet.

    A parent started before its child. A process that started after it has reused the parent's pid.
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
    ancestry: _ProcessAncestry,
    names: Mapping[int, str],
    arguments: Mapping[int, tuple[str, ...]],
    job_of: JobOfCgroup,
) -> GpuProcess:
    entry = ancestry.entry
    if entry is None:
        return GpuProcess(ancestry.pid, None, None, None, None)
    return GpuProcess(
        pid=ancestry.pid,
        uid=entry.uid,
        user=None if entry.uid is None else names.get(entry.uid, str(entry.uid)),
        name=display_name(entry.name, arguments.get(ancestry.pid, ())) or None,
        memory_mb=None,
        model=detect_model([arguments.get(pid, ()) for pid in (ancestry.pid, *ancestry.ancestors)]),
        job=job_of(entry.cgroup),
        ancestors=ancestry.ancestors,
        is_mps_server=entry.is_mps_server,
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
