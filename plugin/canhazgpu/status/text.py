"""The words of the status table: durations, and the cells of one GPU's row; pure."""

from __future__ import annotations

from typing import NamedTuple

from canhazgpu.gpu.usage import GpuState, Usage, processes_text, users_of
from canhazgpu.ledger.values import Claim
from canhazgpu.status.model import GpuStatus, NodeStatus

NO_USAGE = "no usage detected"
WITHOUT_RESERVATION = "WITHOUT RESERVATION"
MAX_NAME = 40
"""Characters shown of a job's name, which users choose freely."""

_UNITS = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))

STATUS_WORDS = {
    GpuState.AVAILABLE: "available",
    GpuState.RESERVED: "in use",
    GpuState.UNRESERVED: "in use",
    GpuState.QUARANTINED: "quarantined",
    GpuState.UNKNOWN: "unknown",
}


class Cells(NamedTuple):
    """One row of the table, in the order of its columns.

    Names in it come from users; whoever prints them to a terminal makes them harmless first.
    """

    gpu: str
    status: str
    user: str
    duration: str
    type: str
    model: str
    details: str
    validation: str


def duration_text(seconds: float) -> str:
    """Return ``15m 30s``, ``8h 0m 0s``, ``2d 3h 0m 0s``; a negative duration is none."""
    return " ".join(_parts(seconds))


def short_duration_text(seconds: float) -> str:
    """Return the duration in its two largest units, without a zero one: ``30m``, ``2h 5m``."""
    parts = _parts(seconds)
    if len(parts) == 2:  # minutes and seconds: seconds matter to nobody here
        return parts[0]
    return " ".join(part for place, part in enumerate(parts[:2]) if place == 0 or part[0] != "0")


def _parts(seconds: float) -> list[str]:
    rest = max(int(seconds), 0)
    parts: list[str] = []
    for unit, size in _UNITS:
        count, rest = divmod(rest, size)
        if parts or count or unit == "s":
            parts.append(f"{count}{unit}")
    return parts


def heading_text(status: NodeStatus) -> str:
    """Return the heading of a node's block, ``n2 (scanned 3m ago)``; only the name when live."""
    if status.live or status.scanned_at is None:
        notes = []
    else:
        notes = [f"scanned {short_duration_text(status.read_at - status.scanned_at)} ago"]
    if status.fault:
        notes.append(status.fault)
    return f"{status.node} ({'; '.join(notes)})" if notes else status.node


def cells(gpu: GpuStatus, now: float) -> Cells:
    """Return the row of one GPU; `now` is on the store's clock."""
    reservation = gpu.reservation
    return Cells(
        gpu="?" if gpu.index is None else str(gpu.index),
        status=STATUS_WORDS[gpu.state],
        user=_user(gpu),
        duration=_held_for(gpu, now),
        type=reservation.claim.type if reservation else "",
        model="",
        details=details_text(gpu, now),
        validation=validation_text(gpu),
    )


def _user(gpu: GpuStatus) -> str:
    if gpu.reservation is not None:
        return gpu.reservation.claim.user
    if gpu.usage is Usage.IN_USE and gpu.reading is not None:
        return users_of(gpu.reading.processes)
    return ""


def _held_for(gpu: GpuStatus, now: float) -> str:
    # A record that cannot be read has no time of its grant.
    if gpu.reservation is None or not gpu.reservation.granted_at:
        return ""
    return duration_text(now - gpu.reservation.granted_at)


def details_text(gpu: GpuStatus, now: float) -> str:
    """Return the DETAILS cell."""
    held_back = f"quarantined: {gpu.quarantine.reason}" if gpu.quarantine else ""
    if gpu.reservation is not None:
        return ", ".join(filter(None, (_claim_text(gpu.reservation.claim, now), held_back)))
    if gpu.quarantine is not None:
        return gpu.quarantine.reason
    if gpu.state is GpuState.UNRESERVED:
        return WITHOUT_RESERVATION
    if gpu.state is GpuState.AVAILABLE and gpu.released_at is not None:
        return f"free for {short_duration_text(now - gpu.released_at)}"
    return ""


def _claim_text(claim: Claim, now: float) -> str:
    if claim.job_id is None:
        return "" if claim.ends_at is None else _end_text(claim.ends_at, now, "expire")
    name = claim.job_name or ""
    shown = name if len(name) <= MAX_NAME else name[: MAX_NAME - 3] + "..."
    job = f"job {claim.job_id} {shown}".rstrip()
    return job if claim.ends_at is None else f"{job}, {_end_text(claim.ends_at, now, 'end')}"


def _end_text(ends_at: float, now: float, verb: str) -> str:
    if ends_at > now:
        return f"{verb}s in {duration_text(ends_at - now)}"
    past = {"end": "should have ended", "expire": "should have expired"}[verb]
    return f"{past} {short_duration_text(now - ends_at)} ago"


def validation_text(gpu: GpuStatus) -> str:
    """Return the VALIDATION cell: what the GPU was seen to do."""
    reading = gpu.reading
    if gpu.doubt or reading is None:
        alone = gpu.state is GpuState.UNKNOWN
        return gpu.doubt if alone else f"cannot tell: {gpu.doubt}"
    amount = "" if reading.memory_used_mb is None else f"{reading.memory_used_mb}MB"
    if gpu.state is GpuState.RESERVED:
        if gpu.usage is not Usage.IN_USE:
            return NO_USAGE
        return ", ".join(filter(None, (amount, f"{len(reading.processes)} processes")))
    if gpu.usage is not Usage.IN_USE:
        return f"{amount} used" if amount else NO_USAGE
    processes = processes_text(reading.processes)
    return " ".join(filter(None, (amount, "used", f"by {processes}" if processes else "")))
