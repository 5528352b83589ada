"""Who holds the GPUs of a plain node, and what these are used for, by the node's head; pure.

Beside what `counts` says, nobody holds one of them by `run`, as a head lacks heartbeats, or by a
share. Each function raises `NotPlainError`, or what comes of a value of another kind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from canhazgpu.gpu.usage import MAX_PID, UsagePolicy, memory_text
from canhazgpu.ledger.owner import RUN
from canhazgpu.ledger.values import MAX_NAME
from canhazgpu.status.heads.counts import NotPlainError
from canhazgpu.status.validation_cell import NO_USAGE


class Holder(NamedTuple):
    """What is shown of a reservation; times are seconds since the epoch."""

    owner: str
    type: str
    user: str
    job_id: str | None
    job_name: str | None
    note: str | None
    granted_at: float
    renewed_at: float | None
    ends_at: float | None


def holder_of(record: Mapping[str, Any]) -> Holder:
    """Return the holder by the record of the reservation, as the head has it."""
    type_, granted_ms = record["type"], record["granted_ms"]
    expires_ms, renewed_ms = record.get("expires_ms"), record.get("renewed_ms")
    ends_at = record.get("ends_at") if expires_ms is None else expires_ms / 1000
    is_plain = (
        type_ != RUN
        and record.get("share") is None
        and (ends_at is None or type(ends_at) in (int, float))
        and (renewed_ms is None or type(renewed_ms) is int)
        and type(granted_ms) is int
    )
    if not is_plain:
        raise NotPlainError
    return Holder(
        record["owner"],
        type_,
        record["user"],
        _text_or_none(record.get("job_id")),
        _text_or_none(record.get("job_name")),
        _text_or_none(record.get("note")),
        granted_ms / 1000,
        None if renewed_ms is None else renewed_ms / 1000,
        ends_at,
    )


def held_memory_mb(processes: Sequence[Any], used_mb: int, policy: UsagePolicy) -> int:
    """Return the memory in use on a held GPU, by the driver or by its processes (MB)."""
    of_processes_mb = 0
    for pid, _, user, name, memory_mb, _, _, _, is_mps_server in processes:
        is_plain = (
            0 < pid <= MAX_PID
            and memory_mb >= 0
            and not is_mps_server
            and user not in policy.ignore_users
            and name not in policy.ignore_processes
            and f"{user}:{name}" not in policy.ignore_processes
        )
        if not is_plain:
            raise NotPlainError
        of_processes_mb += memory_mb
    return max(used_mb, of_processes_mb)


def held_use_text(memory_mb: int, processes: int, policy: UsagePolicy) -> str:
    """Return what the use of a held GPU is, ``8452MB, 1 processes``."""
    if memory_mb <= policy.memory_threshold_mb:
        return NO_USAGE
    return f"{memory_text(memory_mb)}, {processes} processes"


def _text_or_none(value: Any) -> str | None:
    """Return what a record tells; another program's may tell what is no text."""
    if value is None:
        return None
    if type(value) is not str or len(value) > MAX_NAME:
        raise NotPlainError
    return value
