"""What owners made of their GPUs, in amounts that can be added up; pure.

The note of an epilog, or of a run's end, has it as the fact ``use`` (`canhazgpu.gpu.use_text`), and
with what the driver tells: ``held_ms``, for how long the owner held its GPUs, and ``idle_ms``, for
how long scans found those GPUs unused, all together. ``scripts/shared/entries.lua`` adds it to the
totals.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.ledger.journal_entries import USE_KINDS
from canhazgpu.ledger.usage import DAY_MS, Amounts
from canhazgpu.ledger.values import Event

KNOWN, BUSY, IDLE, OWNERS, MEMORY_KNOWN, MEMORY = range(6)
"""Places in `Amounts` of the use: milliseconds for which GPUs were held of whose use the driver
tells, of these those in which kernels ran, and those in which scans found them unused; how many
owners have ended; milliseconds for which GPUs were held of whose memory it tells, and these times
the highest share of the memory that was in use."""

USE_FIELD = "use:"
"""Begins the names of a node's totals of this, beside those of what was held."""
MAX_HELD_MS = 1e11
"""What is more, is no time: three years."""
MAX_ROWS = 256
"""GPUs, and instances of GPUs, of one owner on a node."""


@dataclass(frozen=True, slots=True)
class HeldUse:
    """For how long an owner held its GPUs, and what it made of them; it is not counted yet."""

    held_ms: int
    amounts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class GpuRow:
    """What the driver tells of one GPU: shares from 0 to 1, the memory's None if not known."""

    busy: float
    peak_memory: float | None


def driver_rows(use: Any) -> list[GpuRow]:
    """Return what the fact ``use`` tells by the driver; what has another form is left out."""
    rows = use.get("driver") if isinstance(use, Mapping) else None
    found = []
    for row in rows[:MAX_ROWS] if isinstance(rows, list) else ():
        if isinstance(row, list) and len(row) == 4:
            peak_mb, total_mb, percent = (_amount(one) for one in row[1:])
            is_known = total_mb and (peak_mb is not None or percent is None)
            share = min((peak_mb or 0.0) / total_mb, 1.0) if is_known and total_mb else None
            found.append(GpuRow(min(percent or 0.0, 100.0) / 100, share))
    return found


def held_use(use: Any) -> HeldUse | None:
    """Return the amounts that the fact ``use`` tells; None where the driver tells nothing."""
    rows = driver_rows(use)
    held_ms = _amount(use.get("held_ms")) if rows else None
    if held_ms is None or held_ms > MAX_HELD_MS:
        return None
    idle_ms = min(_amount(use.get("idle_ms")) or 0.0, held_ms * len(rows))
    peaks = [one.peak_memory for one in rows if one.peak_memory is not None]
    amounts = (
        held_ms * len(rows),
        held_ms * sum(one.busy for one in rows),
        idle_ms,
        0,
        held_ms * len(peaks),
        held_ms * sum(peaks),
    )
    return HeldUse(int(held_ms), tuple(map(int, amounts)))


def use_by_day(events: Iterable[Event]) -> dict[int, dict[str, Amounts]]:
    """Return what owners made of their GPUs by these events, by day (UTC, since 1970)."""
    found: dict[int, dict[str, Amounts]] = {}
    for event in events:
        use = held_use(event.facts.get("use")) if event.kind in USE_KINDS else None
        if use is not None and event.claim is not None:
            _add_use(found, f"{event.claim.user}\t{event.claim.type}", round(event.at * 1000), use)
    return found


def _add_use(found: dict[int, dict[str, Amounts]], key: str, ended_ms: int, use: HeldUse) -> None:
    began_ms = max(ended_ms - use.held_ms, 0)
    held_ms = ended_ms - began_ms
    for day in range(began_ms // DAY_MS, ended_ms // DAY_MS + 1):
        inside_ms = min(ended_ms, (day + 1) * DAY_MS) - max(began_ms, day * DAY_MS)
        part = inside_ms / held_ms if held_ms else 1.0
        sums = found.setdefault(day, {}).setdefault(key, [0] * 6)
        for place, amount in enumerate(use.amounts):
            sums[place] += int(amount * part)
    found[ended_ms // DAY_MS][key][OWNERS] += 1


def _amount(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) and 0 <= value < 1e12 else None
