"""Parse durations such as ``90s``, ``30m``, ``2h``, ``1d``, ``0.5h`` and ``1h30m``; pure."""

from __future__ import annotations

import re

from canhazgpu.errors import InputError

MIN_DURATION_S = 1.0
MAX_DURATION_S = 10 * 365 * 86400.0
"""Ten years; a longer duration is taken for a mistake."""

_UNIT_S = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_AMOUNT = r"([0-9]{1,9}(?:\.[0-9]{1,9})?)"
_DURATION = re.compile(r"\s*".join(rf"(?:{_AMOUNT}{unit})?" for unit in _UNIT_S))


def parse_duration(text: str) -> float:
    """Return the duration in seconds; raises `InputError`, which says what is accepted.

    Each unit may occur once, the largest first. A number without a unit is refused: it is
    ambiguous.
    """
    given = text.strip()
    match = _DURATION.fullmatch(given)
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
