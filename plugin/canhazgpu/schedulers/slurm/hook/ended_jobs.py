"""Release what ended jobs still hold."""

from __future__ import annotations

from canhazgpu.allocator import GpuService
from canhazgpu.ledger.local.job_records import JobRecord, JobRecords

QUARANTINED_BY_EPILOG = "epilog"
"""Stored as the author of a quarantine: an ended job left the GPU in use. The health check lifts
it once a scan finds the GPU free."""


def release_ended_jobs(service: GpuService, records: JobRecords, ended: list[JobRecord]) -> None:
    """Release what ended attempts still hold, and forget their records. Raises `StoreError`."""
    for record in ended:
        service.release(record.owner.token, "job ended")
        records.forget(record.owner)
