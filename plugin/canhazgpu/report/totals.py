"""Add up GPU hours, reservations and idle time, by user and by node; pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from canhazgpu.report.held_time import HeldTime, TimeSpan

K = TypeVar("K", bound=Hashable)
HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class UsageTotals:
    """The totals of a group of owners.

    `share` is the part of all users' GPU hours, from 0 to 1. `reservations` counts by type; all
    GPUs and nodes of one owner count as one reservation.
    """

    gpu_hours: float
    share: float
    idle_hours: float
    reservations: Mapping[str, int]

    @property
    def reservation_count(self) -> int:
        """The number of reservations of all types."""
        return sum(self.reservations.values())


@dataclass(frozen=True, slots=True)
class Report:
    """The totals within a time span; the most GPU hours come first."""

    span: TimeSpan
    total: UsageTotals
    by_user: Mapping[str, UsageTotals]
    by_node: Mapping[str, UsageTotals]
    by_user_and_node: Mapping[tuple[str, str], UsageTotals]


def build_report(holds: Iterable[HeldTime], span: TimeSpan, users: Collection[str] = ()) -> Report:
    """Return the report of these users, or of all; shares are always of all users' hours."""
    everything = list(holds)
    all_s = sum(one.held_s for one in everything)
    wanted = [one for one in everything if not users or one.user in users]
    return Report(
        span=span,
        total=_totals(wanted, all_s),
        by_user=_totals_by(wanted, all_s, lambda one: one.user),
        by_node=_totals_by(wanted, all_s, lambda one: one.node),
        by_user_and_node=_totals_by(wanted, all_s, lambda one: (one.user, one.node)),
    )


def _totals_by(
    holds: Iterable[HeldTime], all_s: float, key: Callable[[HeldTime], K]
) -> dict[K, UsageTotals]:
    groups: dict[K, list[HeldTime]] = {}
    for one in holds:
        groups.setdefault(key(one), []).append(one)
    usages = ((name, _totals(group, all_s)) for name, group in groups.items())
    return dict(sorted(usages, key=lambda one: (-one[1].gpu_hours, one[0])))


def _totals(holds: Collection[HeldTime], all_s: float) -> UsageTotals:
    held_s = sum(one.held_s for one in holds)
    # Records that cannot be read have no owner of their own: all of them count as one.
    types = {one.owner: one.type for one in holds}
    return UsageTotals(
        gpu_hours=held_s / HOUR_S,
        share=held_s / all_s if all_s else 0.0,
        idle_hours=sum(one.idle_s for one in holds) / HOUR_S,
        reservations=dict(sorted(Counter(types.values()).items())),
    )
