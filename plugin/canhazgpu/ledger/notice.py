"""A notice for a user: that somebody else took GPUs from the user; pure."""

from __future__ import annotations

from canhazgpu.frozen_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Notice:
    """GPUs, as people name them (``GPU 1``), that were taken at `at` (seconds since the epoch).

    `by` is who took them, "" for the node itself.
    """

    gpus: str
    at: float
    by: str
    reason: str
