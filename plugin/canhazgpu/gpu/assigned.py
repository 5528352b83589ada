"""A GPU as a scheduler assigned it to a job; pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AssignedGpu:
    """A GPU granted to a job, under the number by which the scheduler knows it.

    `device_file` is the device the job may open for it, empty where that is not known.
    """

    position: int
    uuid: str
    index: int
    device_file: str = ""
