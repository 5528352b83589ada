"""Durations as people write and read them: ``90s``, ``2h``, ``1h30m``; pure."""

from __future__ import annotations

import functools
import re

from canhazgpu.errors import InputError

MIN_DURATION_S = 1.0
MAX_DURATION_S = 10 * 365 * 86400.0
"""Ten years: a longer one is a typing error."""

_UNIT_S = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_AMOUNT = r"([0-9]{1,9}(?:\.[0-9]{1,9})?)"
_DURATION = r"\s*".join(rf"(?:{_AMOUNT}{unit})?" for unit in _UNIT_S)
"""Compiled at its use: most importers only format."""


def parse_duration(text: str) -> float:
    """Return the duration in seconds; raises `InputError` that says what is accepted.

    Each unit stands at most once, the largest first. A number without a unit is refused: it may
    mean minutes or hours.
    """
    given = text.strip()
    match = re.fullmatch(_DURATION, given)
    if match is None or not given:
        raise InputError(_not_a_duration(text))
    amounts = zip(match.groups(), _UNIT_S.values(), strict=True)
    seconds = sum(float(amount) * unit_s for amount, unit_s in amounts if amount is not None)
    if seconds < MIN_DURATION_S:
        raise InputError(f"{given!r} is too short; accepted: from 1s up")
    if seconds > MAX_DURATION_S:
        raise InputError(f"{given!r} is too long; accepted: up to 10 years, 3650d")
    return seconds


def _not_a_duration(text: str) -> str:
    shown = text if len(text) <= 40 else text[:37] + "..."
    hint = f"say the unit, as {text.strip()}m; " if re.fullmatch(r"\s*[0-9]{1,9}\s*", text) else ""
    return f"{shown!r} is not a duration; {hint}accepted: 90s, 30m, 2h, 1d, 0.5h or 1h30m"


def duration_text(seconds: float) -> str:
    """Return ``15m 30s``, ``8h 0m 0s``, ``2d 3h 0m 0s``; a negative duration counts as 0."""
    return " ".join(_parts(seconds))


def short_duration_text(seconds: float) -> str:
    """Return the two largest units, without one that is zero: ``30m``, ``2h 5m``."""
    return _short_text(max(int(seconds), 0))


@functools.lru_cache(maxsize=4096)
def _short_text(seconds: int) -> str:
    # Ten thousand nodes were scanned within the same minute.
    parts = _parts(seconds)
    if len(parts) == 2:  # minutes and seconds
        return parts[0]
    return " ".join(part for rank, part in enumerate(parts[:2]) if rank == 0 or part[0] != "0")


def _parts(seconds: float) -> list[str]:
    rest = max(int(seconds), 0)
    parts: list[str] = []
    for unit, unit_s in _UNIT_S.items():
        count, rest = divmod(rest, unit_s)
        if parts or count or unit == "s":
            parts.append(f"{count}{unit}")
    return parts
