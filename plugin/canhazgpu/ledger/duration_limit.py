"""How long a reservation, its extension and a waiter's lease may be at most; pure."""

from __future__ import annotations

from canhazgpu.errors import InputError

MAX_DURATION_S = 10 * 366 * 24 * 3600.0


def check_duration(duration_s: float) -> None:
    """Raise `InputError` for what is no duration (seconds)."""
    if not 0 < duration_s <= MAX_DURATION_S:
        raise InputError(f"{duration_s} s is no duration; accepted: more than 0, at most 10 years")
