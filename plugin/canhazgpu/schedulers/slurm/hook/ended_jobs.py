"""Release the reservations of ended jobs."""

from __future__ import annotations

from canhazgpu.allocation.allocator import GpuAllocator
from canhazgpu.ledger.local.jobs.job_record import JobRecord
from canhazgpu.ledger.local.jobs.job_records import JobRecords

QUARANTINED_BY_EPILOG = "epilog"
"""Stored as the author of a quarantine: an ended job left the GPU in use.

The health check lifts the quarantine once a scan finds the GPU free."""


def release_ended_jobs(
    allocator: GpuAllocator, records: JobRecords, ended: list[JobRecord]
) -> None:
    """Release what ended attempts still hold, and remove their records. Raises `StoreError`."""
    for record in ended:
        allocator.release(record.owner.token, "job ended")
        records.forget(record.owner)
