"""What ended holdings have used on each day, by the rules of ``scripts/shared/usage.lua``; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.ledger.journal_entries import RELEASE
from canhazgpu.ledger.release_reasons import was_unused
from canhazgpu.ledger.values import Claim, Event

DAY_S = 86400
DAY_MS = DAY_S * 1000

Amounts = list[int]
"""Milliseconds held, of these idle, reservations begun, ended, and both without those that another
node counts."""
HELD, IDLE, BEGUN, ENDED, BEGUN_LED, ENDED_LED = range(6)

Totals = Mapping[str, Sequence[int]]
"""`Amounts` by user and type, ``USER\\tTYPE``."""


@dataclass(frozen=True, slots=True)
class NodeUsage:
    """What a node has counted, as it published it: no value in it is checked.

    `before` is what was used before the days that were asked for, `total` all, both `Totals`.
    `held` are the present holdings, see ``scripts/at_end/at_end.lua``. `use_before` and `use` are
    further totals, of the use that the driver told (`gpu_use`): until those days, and all. None
    where it never told any.
    """

    node: str
    before: Any
    total: Any
    held: Any
    use_before: Any = None
    use: Any = None


@dataclass(frozen=True, slots=True)
class UsageRead:
    """The nodes that count what is used there, and the names of those that do not, or not yet.

    `read_at` is the store's time, in seconds since the epoch. `first_day` is the first day (UTC,
    counted from 1970-01-01) that was asked for: `NodeUsage.before` ends with the day before it.
    """

    read_at: float
    first_day: int
    counted: tuple[NodeUsage, ...]
    uncounted: tuple[str, ...]


def usage_by_day(events: Iterable[Event]) -> dict[int, dict[str, Amounts]]:
    """Return what the holdings have used that these events release, by day (UTC, since 1970).

    The releases of one owner that have one time count as one reservation.
    """
    found: dict[int, dict[str, Amounts]] = {}
    counted: set[tuple[str, float]] = set()
    for event in events:
        if event.kind == RELEASE and event.claim and not was_unused(event.reason, event.by):
            name = (event.claim.owner, event.at)
            _add_holding(found, event, event.claim, is_new=name not in counted)
            counted.add(name)
    return found


def _add_holding(
    found: dict[int, dict[str, Amounts]], event: Event, claim: Claim, *, is_new: bool
) -> None:
    ended_ms = round(event.at * 1000)
    granted_ms = ended_ms if event.granted_at is None else round(event.granted_at * 1000)
    began_ms = min(granted_ms, ended_ms)
    whole_ms, part = ended_ms - began_ms, claim.share.fraction if claim.share else 1.0
    idle_ms = min(max(event.idle_s * 1000, 0.0), whole_ms)
    key = f"{claim.user}\t{claim.type}"
    first, last = began_ms // DAY_MS, ended_ms // DAY_MS
    for day in range(first, last + 1):
        held_ms = min(ended_ms, (day + 1) * DAY_MS) - max(began_ms, day * DAY_MS)
        idle_here_ms = idle_ms * held_ms / whole_ms if whole_ms else 0.0
        amounts = found.setdefault(day, {}).setdefault(key, [0] * 6)
        amounts[HELD] += int(held_ms * part)
        amounts[IDLE] += int(idle_here_ms * part)
    if is_new:
        led = not claim.follows
        begun, ended = found[first][key], found[last][key]
        begun[BEGUN] += 1
        begun[BEGUN_LED] += led
        ended[ENDED] += 1
        ended[ENDED_LED] += led
