"""Suggest the value that was meant in place of one that is not known; pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

MAX_SHOWN = 10
_MIN_SIMILARITY = 0.6


def closest(given: str, known: Iterable[str]) -> str:
    """Return ``did you mean 'gpu'?``, an empty text where no known value is like this one."""
    from difflib import get_close_matches  # noqa: PLC0415 - only a misspelling needs it

    lowered = {name.lower(): name for name in known}
    close = get_close_matches(given.lower(), lowered, n=1, cutoff=_MIN_SIMILARITY)
    return f"did you mean {lowered[close[0]]!r}?" if close else ""


def suggestion(given: str, known: Iterable[str]) -> str:
    """Return ``did you mean 'gpu'? known: cpu, gpu``; of many known values the first ones.

    Without a known value, return an empty text.
    """
    names = sorted(set(known))
    return f"{closest(given, names)} known: {_listed(names)}".lstrip() if names else ""


def _listed(names: Sequence[str]) -> str:
    more = len(names) - MAX_SHOWN
    return ", ".join(names[:MAX_SHOWN]) + (f" and {more} more" if more > 0 else "")
