"""The status as JSON; pure. Programs rely on the keys."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, fields
from datetime import UTC, datetime
from typing import Any

from canhazgpu.gpu.scan import GpuHealth, GpuProcess
from canhazgpu.ledger.values import Quarantine, Reservation, Waiter
from canhazgpu.status.details_cell import details_text
from canhazgpu.status.node_status import GpuStatus, HooksOutage, NodeStatus
from canhazgpu.status.validation_cell import validation_text


def iso_time(seconds: float | None) -> str | None:
    """Return the time as ISO 8601 in UTC, ``2025-01-31T12:00:00Z``; None for an unknown time.

    A number that is no date, from a damaged record, is unknown too.
    """
    if seconds is None:
        return None
    try:
        return datetime.fromtimestamp(int(seconds), UTC).isoformat().replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        return None


def status_to_dict(
    generated_at: float, nodes: Iterable[NodeStatus], error: str | None = None
) -> dict[str, Any]:
    """Return everything that status shows; all times are of the clock of Redis.

    `error` says what is missing, None if nothing is.
    """
    return {
        "generated_at": iso_time(generated_at),
        "error": error,
        "nodes": [node_to_dict(node) for node in nodes],
    }


def node_line_to_dict(status: NodeStatus) -> dict[str, Any]:
    """Return one node of `status_to_dict`, with the time at which it was read."""
    return {"generated_at": iso_time(status.read_at), **node_to_dict(status)}


def node_to_dict(status: NodeStatus) -> dict[str, Any]:
    """Return one node of `status_to_dict`."""
    return {
        "node": status.node,
        "scanned_at": iso_time(status.scanned_at),
        "live": status.live,
        "source": status.source,
        "fault": status.fault,
        "found_gpus": status.found_gpus,
        "expected_gpus": status.expected_gpus or None,
        "partitions": None if status.partitions is None else list(status.partitions),
        "partitions_at": iso_time(status.partitions_at),
        "reservations_known": status.reservations_known,
        "hooks_outage": outage_to_dict(status.hooks_outage),
        "gpus": [_gpu_to_dict(gpu, status.read_at) for gpu in status.gpus],
        "queue": [waiter_to_dict(position, one) for position, one in enumerate(status.queue, 1)],
    }


def outage_to_dict(outage: HooksOutage | None) -> dict[str, Any] | None:
    """Return when the node's hooks found the store away, and why; None if they did not."""
    if outage is None:
        return None
    return {"since": iso_time(outage.since), "reason": outage.reason}


def _gpu_to_dict(gpu: GpuStatus, now: float) -> dict[str, Any]:
    reading = gpu.reading
    held = [_reservation_to_dict(one) for one in gpu.holders]
    first = held[0] if held and gpu.holders[0] is gpu.reservation else None
    if first is None and gpu.reservation:
        first = _reservation_to_dict(gpu.reservation)
    return {
        "index": gpu.index,
        "mig_index": reading.mig_index if reading else None,
        "uuid": gpu.uuid,
        "parent_uuid": reading.parent_uuid if reading else None,
        "name": reading.name if reading else "",
        "mig_profile": (reading.mig_profile or None) if reading else None,
        "state": gpu.state.value,
        "reservation": first,
        "reservations": held,
        "quarantine": _quarantine_to_dict(gpu.quarantine) if gpu.quarantine else None,
        "health": _health_to_dict(reading.health) if reading and reading.health else None,
        "memory_used_mb": reading.memory_used_mb if reading else None,
        "memory_total_mb": reading.memory_total_mb if reading else None,
        "utilization_percent": gpu.utilization_percent,
        "processes": [_process_to_dict(one, gpu) for one in reading.processes] if reading else [],
        "intruders": [_process_to_dict(one, gpu) for one in gpu.intruders],
        "others_below_threshold": [
            _process_to_dict(one, gpu) for one in gpu.others.below_threshold
        ],
        "model": next(iter(gpu.models), None),
        "details": details_text(gpu, now, wide=True),
        "validation": validation_text(gpu, wide=True),
    }


def _health_to_dict(health: GpuHealth) -> dict[str, Any]:
    # Field by field: asdict() copies each value, and takes five times as long.
    return {name: getattr(health, name) for name in _HEALTH_FIELDS}


_HEALTH_FIELDS = tuple(one.name for one in fields(GpuHealth))


def _reservation_to_dict(reservation: Reservation) -> dict[str, Any]:
    claim = reservation.claim
    ends_at = claim.ends_at if reservation.expires_at is None else reservation.expires_at
    return {
        "type": claim.type,
        "user": claim.user,
        "job_id": claim.job_id,
        "job_name": claim.job_name,
        "owner": claim.owner,
        "note": claim.note,
        "share": asdict(claim.share) if claim.share else None,
        "granted_at": iso_time(reservation.granted_at or None),
        "renewed_at": iso_time(reservation.renewed_at),
        "ends_at": iso_time(ends_at),
    }


def _quarantine_to_dict(quarantine: Quarantine) -> dict[str, Any]:
    return {
        "reason": quarantine.reason,
        "by": quarantine.by,
        "since": iso_time(quarantine.since or None),
    }


def _process_to_dict(process: GpuProcess, gpu: GpuStatus) -> dict[str, Any]:
    return {
        "pid": process.pid,
        "user": process.user,
        "name": process.name,
        "memory_mb": process.memory_mb,
        "model": process.model,
        "job": process.job,
        "ignored": process in gpu.ignored,
    }


def waiter_to_dict(position: int, waiter: Waiter) -> dict[str, Any]:
    """Return one entry of a node's queue."""
    return {
        "position": position,
        "user": waiter.user,
        "count": waiter.count,
        "mig_profile": waiter.profile or None,
        "gpus": list(waiter.gpus),
        "owner": waiter.owner,
        "since": iso_time(waiter.since),
    }
