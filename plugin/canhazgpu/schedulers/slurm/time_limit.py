"""The end of a job's time, where it has a limit; pure."""

from __future__ import annotations

UNLIMITED_S = 365 * 86400
"""The time after its start at which Slurm says that a job without a limit ends (22.05 to 26.05)."""


def limited_end(started_at: float | None, ends_at: float | None) -> float | None:
    """Return the end, None for a job without a limit; times are in seconds since the epoch."""
    if started_at and ends_at and ends_at - started_at >= UNLIMITED_S:
        return None
    return ends_at
