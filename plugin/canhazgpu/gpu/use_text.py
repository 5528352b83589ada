"""What a job made of its GPUs, as an epilog noted it, for people; pure.

The fact has ``driver``: a list of index, highest memory (MB), memory of the GPU (MB) and percent of
the time in which kernels ran, by the driver's accounting; without the last one the GPU was never
used. It has ``scans``: a list of index, seconds in which scans found the GPU unused, and seconds
for which it was held, where the driver has not kept all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from canhazgpu.durations import short_duration_text

MB_PER_GB = 1024
_INDEX = re.compile(r"[0-9]{1,6}(:[0-9]{1,6})?", re.ASCII)


def use_texts(use: Any) -> Iterator[str]:
    """Yield a text for each GPU; what is not of the form above is left out."""
    if not isinstance(use, Mapping):
        return
    for row in _rows(use.get("driver"), 4):
        yield f"GPU {row[0]}: {_driver_text(*row[1:])}"
    for row in _rows(use.get("scans"), 3):
        idle_s, held_s = _number(row[1]), _number(row[2])
        if idle_s is not None and held_s is not None:
            idle, held = short_duration_text(idle_s), short_duration_text(held_s)
            yield f"GPU {row[0]}: unused for {idle} of {held}, by scans"


def _driver_text(peak_mb: Any, total_mb: Any, busy_percent: Any) -> str:
    busy, peak, total = _number(busy_percent), _number(peak_mb), _number(total_mb)
    if busy is None:
        return "never used"
    of = f" of {total / MB_PER_GB:.0f}" if total else ""
    memory = "" if peak is None else f"peak {peak / MB_PER_GB:.0f}{of} GB, "
    return f"{memory}{busy:.0f} % busy"


def _rows(rows: Any, length: int) -> Iterator[list[Any]]:
    for row in rows if isinstance(rows, list) else ():
        if not isinstance(row, list) or len(row) != length or not isinstance(row[0], str):
            continue
        if _INDEX.fullmatch(row[0]):
            yield row


def _number(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and 0 <= value < 1e12 else None
