"""Compare what a node has counted with what its history tells; pure."""

from __future__ import annotations

import json
from collections.abc import Mapping

from canhazgpu.ledger.gpu_use import USE_FIELD
from canhazgpu.ledger.store.history.stream_id import NO_ENTRY, stream_position
from canhazgpu.ledger.usage import ENDED, HELD, Amounts
from canhazgpu.ledger.values import RECORD_ERRORS

ROUNDED_MS = 1000
"""How much the two ways of adding up may differ for a user on a day."""
ROUNDED_MS_EACH = 10
"""The same for each release on that day."""


def usage_problem(usage: Mapping[str, str], told: Mapping[int, Mapping[str, Amounts]]) -> str:
    """Return what the totals lack of what was told, by day; "" for nothing.

    ``scripts/shared/usage.lua`` describes them. The first day is left out: the history may
    begin in its middle.
    """
    return _problem(usage, {day: told[day] for day in sorted(told)[1:]})


def use_problem(usage: Mapping[str, str], told: Mapping[int, Mapping[str, Amounts]]) -> str:
    """Return the same of what the driver told of the use.

    Its totals begin with the first day of which it told anything.
    """
    own = [name for name in usage if name.startswith(USE_FIELD)]
    of_use = {name.removeprefix(USE_FIELD): usage[name] for name in own}
    known = {name: usage.get(name, "") for name in ("through", "from")}
    found = _problem({"day": "0", "total": "{}", **of_use, **known}, told, before_first="{}")
    return f"{found} (what jobs made of their GPUs)" if found else ""


def _problem(
    usage: Mapping[str, str],
    told: Mapping[int, Mapping[str, Amounts]],
    before_first: str | None = None,
) -> str:
    try:
        through, counted_from = usage.get("through") or NO_ENTRY, usage.get("from") or NO_ENTRY
        if stream_position(through) < stream_position(counted_from):
            return ""  # reports read its history
        for name, text in usage.items():
            if name == "total" or name.isdecimal():
                _totals(text)
        for day, of_users in told.items():
            counted = _counted_on(usage, day, before_first)
            if counted is None:
                continue
            for key, amounts in of_users.items():
                if _is_less(counted.get(key, [0] * 6), amounts):
                    return f"it has not counted all that its history tells of day {day}"
    except (*RECORD_ERRORS, AttributeError, IndexError):
        return "what it has counted cannot be read"
    return ""


def _is_less(counted: Amounts, told: Amounts) -> bool:
    # In both kinds of totals these places have how many ended, and for how long they held.
    rounded_ms = ROUNDED_MS + ROUNDED_MS_EACH * told[ENDED]
    return counted[ENDED] < told[ENDED] or counted[HELD] < told[HELD] - rounded_ms


def _counted_on(
    usage: Mapping[str, str], day: int, before_first: str | None
) -> dict[str, Amounts] | None:
    """Return the difference of two totals; None where the node has not both."""
    last = usage.get("total") if day >= int(usage["day"]) else usage.get(str(day))
    before = usage.get(str(day - 1), before_first)
    if last is None or before is None:
        return None
    old = _totals(before)
    return {
        key: [a - b for a, b in zip(sums, old.get(key, [0] * 6), strict=True)]
        for key, sums in _totals(last).items()
    }


def _totals(text: str) -> dict[str, Amounts]:
    """Return the totals; raises one of `RECORD_ERRORS` for a text that has none."""
    found: dict[str, Amounts] = json.loads(text)
    for sums in found.values() if isinstance(found, dict) else [None]:
        if (
            not isinstance(sums, list)
            or len(sums) != 6
            or not all(type(one) is int for one in sums)
        ):
            raise TypeError("no totals")
    return found
