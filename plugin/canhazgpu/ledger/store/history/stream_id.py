"""The ids of entries in a node's history, a stream of Redis; pure."""

from __future__ import annotations

NO_ENTRY = "0-0"
"""Before the first entry."""


def stream_position(entry_id: str) -> tuple[int, int]:
    """Return the comparable position of an entry in its stream; raises `ValueError`."""
    milliseconds, _, number = entry_id.partition("-")
    return int(milliseconds), int(number or 0)
