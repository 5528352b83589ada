"""Release what ended jobs still hold."""

from __future__ import annotations

from canhazgpu.allocator import GpuService
from canhazgpu.ledger.local.job_records import JobRecord, JobRecords


def release_ended_jobs(service: GpuService, records: JobRecords, ended: list[JobRecord]) -> None:
    """Release what ended attempts still hold, and forget their records. Raises `StoreError`."""
    for record in ended:
        service.release(record.owner.token, "job ended")
        records.forget(record.owner)
