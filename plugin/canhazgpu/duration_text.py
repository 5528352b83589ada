"""Durations in words; pure."""

from __future__ import annotations

_UNITS = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))


def duration_text(seconds: float) -> str:
    """Return ``15m 30s``, ``8h 0m 0s``, ``2d 3h 0m 0s``; a negative duration is none."""
    return " ".join(_parts(seconds))


def short_duration_text(seconds: float) -> str:
    """Return the duration in its two largest units, without a zero one: ``30m``, ``2h 5m``."""
    parts = _parts(seconds)
    if len(parts) == 2:  # minutes and seconds: seconds matter to nobody here
        return parts[0]
    return " ".join(part for place, part in enumerate(parts[:2]) if place == 0 or part[0] != "0")


def _parts(seconds: float) -> list[str]:
    rest = max(int(seconds), 0)
    parts: list[str] = []
    for unit, size in _UNITS:
        count, rest = divmod(rest, size)
        if parts or count or unit == "s":
            parts.append(f"{count}{unit}")
    return parts
