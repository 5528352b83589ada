"""The texts of the status table: a node's heading and queue, and the cells of a GPU; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import NamedTuple

from canhazgpu.durations import duration_text, short_duration_text
from canhazgpu.gpu.ml_model.short_name import short_model_name
from canhazgpu.gpu.usage import GpuState, Usage, users_text
from canhazgpu.ledger.values import Waiter
from canhazgpu.status.details_cell import WITHOUT_RESERVATION, details_text
from canhazgpu.status.node_status import GpuStatus, NodeStatus
from canhazgpu.status.validation_cell import NO_USAGE, validation_text

__all__ = [
    "NO_USAGE",
    "WITHOUT_RESERVATION",
    "Cells",
    "Tone",
    "Tones",
    "cells",
    "details_text",
    "first_waiters_text",
    "heading_text",
    "models_text",
    "queue_text",
    "tones",
    "utilization_text",
    "validation_text",
    "waiter_text",
    "waiters_text",
]

MODEL_WIDTH = 16
NOT_AVAILABLE = "N/A"
MAX_WAITERS_SHOWN = 5

STATUS_WORDS = {
    GpuState.AVAILABLE: "available",
    GpuState.RESERVED: "in use",
    GpuState.UNRESERVED: "in use",
    GpuState.QUARANTINED: "quarantined",
    GpuState.UNKNOWN: "unknown",
}


class Cells(NamedTuple):
    """One row of the table, in the order of its columns.

    Users choose some of the names; the caller must remove control characters before printing.
    """

    gpu: str
    status: str
    user: str
    duration: str
    type: str
    model: str
    details: str
    validation: str


class Tone(Enum):
    """The meaning of a cell's colour."""

    PLAIN = "plain"
    FREE = "free"
    IN_USE = "in use"
    ALARM = "alarm"


class Tones(NamedTuple):
    """The tones of a row's STATUS and DETAILS; the other cells are plain."""

    status: Tone
    details: Tone


_STATUS_TONES = {GpuState.AVAILABLE: Tone.FREE, GpuState.RESERVED: Tone.IN_USE}


def tones(gpu: GpuStatus) -> Tones:
    """Return the tones of a GPU's row."""
    status = _STATUS_TONES.get(gpu.state, Tone.ALARM)
    alarming = status is Tone.ALARM or gpu.intruders or gpu.quarantine
    return Tones(status, Tone.ALARM if alarming else Tone.PLAIN)


def heading_text(status: NodeStatus) -> str:
    """Return the heading of a node's block, ``n2 (scanned 3m ago)``; only the name when live."""
    notes = node_notes(status)
    return f"{status.node} ({'; '.join(notes)})" if notes else status.node


def node_notes(status: NodeStatus) -> list[str]:
    """Return the age of a scan that was not made now, its fault, and whether GPUs are missing."""
    notes = []
    if not status.live and status.scanned_at is not None:
        notes.append(f"scanned {short_duration_text(status.read_at - status.scanned_at)} ago")
    if status.fault:
        notes.append(status.fault)
    if status.lacks_gpus:
        notes.append(f"{status.found_gpus} of {status.expected_gpus} GPUs")
    if not status.reservations_known:
        notes.append("not all reservations are known")
    if outage := status.hooks_outage:
        ago = short_duration_text(status.read_at - outage.since)
        notes.append(f"its hooks found the store away {ago} ago: {outage.reason}")
    return notes


def queue_text(status: NodeStatus, *, wide: bool = False) -> str:
    """Return ``3 waiting: alice 2 GPUs (5m), …`` in the queue's order; empty without a queue."""
    if not status.queue:
        return ""
    display_indices = {
        gpu.uuid: gpu.reading.display_index for gpu in status.all_gpus if gpu.reading
    }
    return waiters_text(status.queue, display_indices, status.read_at, wide=wide)


def waiters_text(
    queue: Sequence[Waiter], display_indices: Mapping[str, str], now: float, *, wide: bool
) -> str:
    """Return the same of somebody's queue at `now`; GPUs are told by their UUIDs' indices."""
    shown = queue if wide else queue[:MAX_WAITERS_SHOWN]
    texts = [_waiter_text(one, display_indices, now) for one in shown]
    return first_waiters_text(texts, len(queue))


def first_waiters_text(first: Sequence[str], waiting: int) -> str:
    """Return the same of the `first` waiters' texts, where so many are `waiting`."""
    more = waiting - len(first)
    return f"{waiting} waiting: {', '.join(first)}" + (f" and {more} more" if more else "")


def _waiter_text(waiter: Waiter, display_indices: Mapping[str, str], now: float) -> str:
    if waiter.gpus:
        wanted = f"GPU {','.join(display_indices.get(uuid, uuid) for uuid in waiter.gpus)}"
    else:
        wanted = waiter.count_text
    return waiter_text(waiter.user, wanted, now - waiter.since)


def waiter_text(user: str, wanted: str, waited_s: float) -> str:
    """Return ``alice 2 GPUs (5m)``."""
    return f"{user} {wanted} ({short_duration_text(waited_s)})"


def cells(gpu: GpuStatus, now: float, *, wide: bool = False) -> Cells:
    """Return the row of one GPU at `now` (clock of Redis); with `wide` nothing is shortened."""
    reservation = gpu.reservation
    return Cells(
        gpu=_place_text(gpu),
        status=STATUS_WORDS[gpu.state],
        user=_users_text(gpu),
        duration=_held_for_text(gpu, now),
        type=reservation.claim.type if reservation else "",
        model=models_text(gpu.models, wide=wide),
        details=details_text(gpu, now, wide=wide),
        validation=validation_text(gpu, wide=wide),
    )


def utilization_text(gpu: GpuStatus) -> str:
    """Return the UTIL cell of the wide table, ``87%``; ``N/A`` where it is not known."""
    percent = gpu.utilization_percent
    return NOT_AVAILABLE if percent is None else f"{percent}%"


def _place_text(gpu: GpuStatus) -> str:
    if gpu.reading is not None:
        return gpu.reading.display_index
    return "?" if gpu.index is None else str(gpu.index)


def _users_text(gpu: GpuStatus) -> str:
    if gpu.reservation is not None:
        return ",".join(dict.fromkeys(one.claim.user for one in gpu.holders))
    return users_text(gpu.processes) if gpu.usage is Usage.IN_USE else ""


def _held_for_text(gpu: GpuStatus, now: float) -> str:
    # A record that cannot be read has no time of the grant.
    if gpu.reservation is None or not gpu.reservation.granted_at:
        return ""
    return duration_text(now - gpu.reservation.granted_at)


def models_text(models: Sequence[str], *, wide: bool) -> str:
    """Return the models on a GPU: all of them, or the first and how many more there are."""
    if wide or not models:
        return ",".join(models)
    more = f" +{len(models) - 1}" if len(models) > 1 else ""
    return short_model_name(models[0], MODEL_WIDTH - len(more)) + more
