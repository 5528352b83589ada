"""What users had on a node within a time span, from what the node has counted; pure."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.ledger.usage import ENDED, HELD, NodeUsage
from canhazgpu.ledger.values import RECORD_ERRORS
from canhazgpu.report.held_time import TimeSpan

UsedRow = tuple[str, float, float, int, int]
"""User and type (``USER\\tTYPE``), milliseconds held, of these idle, the reservations that the user
had, and how many of them no other node counts."""

UseRow = tuple[str, float, float, float, float, float]
"""User and type, and of what the driver told: `Amounts` (`canhazgpu.ledger.gpu_use`) but the number
of owners."""

MAX_MS = 1e15
"""What no node can have: 3000 GPUs for ten years."""


@dataclass(frozen=True, slots=True)
class UsedOnNode:
    """The rows of a node, and their sums; `reservations` by type.

    `uses` are rows of what the driver told of the use of these GPUs.
    """

    node: str
    rows: list[UsedRow]
    held_ms: float
    idle_ms: float
    reservations: Mapping[str, int]
    uses: Sequence[UseRow] = ()

    def counted_here(self) -> UsedOnNode:
        """Return the same for a report on this node alone: it counts every reservation."""
        rows = [(*row[:4], row[3]) for row in self.rows]
        return replace(_summed(self.node, rows), uses=self.uses)

    def only(self, users: Collection[str]) -> UsedOnNode:
        """Return the same of these users alone."""
        rows = [one for one in self.rows if user_of(one[0]) in users]
        uses = [one for one in self.uses if user_of(one[0]) in users]
        return replace(_summed(self.node, rows), uses=uses)


def used_on_node(usage: NodeUsage, span: TimeSpan) -> UsedOnNode | None:
    """Return what was used within the span; None if the node has published what is no usage.

    The span begins with the day for which `usage.before` was read, and ends now.
    """
    try:
        rows = _ended_rows(usage) + _held_rows(usage.held, span)
        found = _summed(usage.node, rows)
        if usage.use:
            found = replace(found, uses=_use_rows(usage.use_before, usage.use))
    except (*RECORD_ERRORS, AttributeError):
        return None
    good = 0 <= found.held_ms <= MAX_MS and 0 <= found.idle_ms <= MAX_MS
    return found if good else None


def _ended_rows(usage: NodeUsage) -> list[UsedRow]:
    # A loop that is run for each user of each node of the cluster: it does nothing twice.
    rows: list[UsedRow] = []
    before = usage.before.get
    for key, (held, idle, begun, _, led, _) in usage.total.items():
        old = before(key)
        if old is None:
            rows.append((key, held, idle, begun, led))
        elif held != old[HELD] or begun != old[ENDED]:
            # Who ended before has begun before, too; what was held over the time's begin counts.
            old_held, old_idle, _, ended, _, ended_led = old
            rows.append((key, held - old_held, idle - old_idle, begun - ended, led - ended_led))
    return rows


def _use_rows(before: Any, total: Any) -> list[UseRow]:
    # As above: nothing is done twice.
    rows: list[UseRow] = []
    old_of = before.get
    for key, (known, busy, idle, owners, memory_known, memory) in total.items():
        old = old_of(key)
        if old is not None:
            old_known, old_busy, old_idle, old_owners, old_memory_known, old_memory = old
            if known == old_known and owners == old_owners:
                continue
            known, busy, idle = known - old_known, busy - old_busy, idle - old_idle  # noqa: PLW2901
            memory_known, memory = memory_known - old_memory_known, memory - old_memory  # noqa: PLW2901
        if not (0 <= busy <= known <= MAX_MS and 0 <= idle <= known):
            raise ValueError("no use of GPUs that were held")
        if not 0 <= memory <= memory_known <= known:
            raise ValueError("no use of the memory of such GPUs")
        rows.append((key, known, busy, idle, memory_known, memory))
    return rows


def _held_rows(held: Any, span: TimeSpan) -> list[UsedRow]:
    since_ms, until_ms = span.since * 1000, span.until * 1000
    rows: list[UsedRow] = []
    for key, granted_ms, gpus, idle_ms, count, led, ends_ms in held:
        if not isinstance(key, str):
            raise TypeError("a holding has a user")
        end_ms = min(until_ms, ends_ms or until_ms)
        whole_ms = end_ms - granted_ms if granted_ms else 0.0
        inside_ms = max(end_ms - max(granted_ms, since_ms), 0.0) if whole_ms > 0 else 0.0
        idle_inside_ms = idle_ms * inside_ms / whole_ms if whole_ms > 0 else 0.0
        rows.append((key, inside_ms * gpus, min(idle_inside_ms, inside_ms * gpus), count, led))
    return rows


def _summed(node: str, rows: list[UsedRow]) -> UsedOnNode:
    held_ms = idle_ms = 0.0
    reservations: dict[str, int] = {}
    for key, held, idle, count, led in rows:
        held_ms += held
        idle_ms += idle
        type_ = key.rpartition("\t")[2]
        reservations[type_] = reservations.get(type_, 0) + count
        if led > count:
            raise ValueError("more reservations than there are")
    if not math.isfinite(sum(reservations.values())):
        raise ValueError("no number of reservations")
    return UsedOnNode(node, rows, held_ms, idle_ms, reservations)


def user_of(key: str) -> str:
    """Return the user of a row's key."""
    return key.rpartition("\t")[0]
