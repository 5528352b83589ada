"""A GPU as a scheduler assigned it to a job; pure."""

from __future__ import annotations

from canhazgpu.frozen_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class AssignedGpu:
    """A GPU that a job has; `position` is the scheduler's own number of it.

    `device_file` is the device file that the job may open for it, empty where it is not known.
    `cuda_index` is as in `GpuReading`.
    """

    position: int
    uuid: str
    index: int
    device_file: str = ""
    cuda_index: int | None = None
