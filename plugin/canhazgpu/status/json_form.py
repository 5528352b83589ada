"""The JSON form of what status shows; pure. Its keys are a promise to programs."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from canhazgpu.gpu.scan import GpuProcess
from canhazgpu.ledger.values import Reservation
from canhazgpu.status.model import GpuStatus, NodeStatus
from canhazgpu.status.text import details_text, validation_text


def time_text(seconds: float | None) -> str | None:
    """Return the time as ISO 8601 in UTC, ``2025-01-31T12:00:00Z``; None where it is not known.

    A time that no calendar has, as a damaged record may hold, is not known either.
    """
    if seconds is None:
        return None
    try:
        return datetime.fromtimestamp(int(seconds), UTC).isoformat().replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        return None


def status_to_dict(generated_at: float, nodes: Iterable[NodeStatus]) -> dict[str, Any]:
    """Return everything that status shows; all times are of the store's clock."""
    return {"generated_at": time_text(generated_at), "nodes": [_node(node) for node in nodes]}


def _node(status: NodeStatus) -> dict[str, Any]:
    return {
        "node": status.node,
        "scanned_at": time_text(status.scanned_at),
        "live": status.live,
        "fault": status.fault,
        "gpus": [_gpu(gpu, status.read_at) for gpu in status.gpus],
    }


def _gpu(gpu: GpuStatus, now: float) -> dict[str, Any]:
    reading = gpu.reading
    return {
        "index": gpu.index,
        "uuid": gpu.uuid,
        "name": reading.name if reading else "",
        "state": gpu.state.value,
        "reservation": _reservation(gpu.reservation) if gpu.reservation else None,
        "memory_used_mb": reading.memory_used_mb if reading else None,
        "memory_total_mb": reading.memory_total_mb if reading else None,
        "processes": [_process(process) for process in reading.processes] if reading else [],
        "model": None,
        "details": details_text(gpu, now),
        "validation": validation_text(gpu),
    }


def _reservation(reservation: Reservation) -> dict[str, Any]:
    claim = reservation.claim
    return {
        "type": claim.type,
        "user": claim.user,
        "job_id": claim.job_id,
        "job_name": claim.job_name,
        "owner": claim.owner,
        "granted_at": time_text(reservation.granted_at or None),
        "ends_at": time_text(claim.ends_at),
    }


def _process(process: GpuProcess) -> dict[str, Any]:
    return {
        "pid": process.pid,
        "user": process.user,
        "name": process.name,
        "memory_mb": process.memory_mb,
    }
