"""What is added up of a group of owners, and its totals; pure."""

from __future__ import annotations

from collections.abc import Mapping

from canhazgpu.frozen_dataclass import dataclass, quick_constructor
from canhazgpu.report.held_time import HeldTime
from canhazgpu.report.node_rows import UsedRow

HOUR_S = 3600.0
HOUR_MS = 3600_000.0


@dataclass(frozen=True, slots=True)
class UsageTotals:
    """The totals of a group of owners.

    `share` is the part of all users' GPU hours, from 0 to 1. `reservations` counts by type; all
    GPUs and nodes of one owner count as one reservation. `wasted_hours` are those in which held
    GPUs did not compute: by the driver for those jobs whose use it has kept, by the scans for the
    rest. `mean_utilization` and `peak_memory_share` (0 to 1) are means of these jobs' GPU hours
    alone, None without any: for how much of them kernels ran, and the highest memory in use.
    """

    gpu_hours: float
    share: float
    idle_hours: float
    reservations: Mapping[str, int]
    wasted_hours: float = 0.0
    mean_utilization: float | None = None
    peak_memory_share: float | None = None

    @property
    def reservation_count(self) -> int:
        """The number of reservations of all types."""
        return sum(self.reservations.values())


_new_totals = quick_constructor(UsageTotals)


class UsageSum:
    """What is added up: of holds each owner is one reservation, rows have a number of them."""

    __slots__ = (
        "busy_hours", "hours", "idle_hours", "known_hours", "memory_hours", "memory_known_hours",
        "owners", "reservations", "wasted_hours",
    )  # fmt: skip

    def __init__(self) -> None:
        self.hours = self.idle_hours = 0.0
        self.wasted_hours = self.known_hours = self.busy_hours = 0.0
        self.memory_known_hours = self.memory_hours = 0.0
        self.owners: dict[str, str] = {}
        self.reservations: dict[str, int] = {}

    def add_hold(self, one: HeldTime) -> None:
        """Add a GPU that one owner held."""
        self.hours += one.held_s / HOUR_S
        self.idle_hours += one.idle_s / HOUR_S
        self.wasted_hours += one.wasted_s / HOUR_S
        if one.use is not None:
            self.known_hours += one.held_s / HOUR_S
            self.busy_hours += one.held_s * one.use.busy / HOUR_S
            if one.use.peak_memory is not None:
                self.memory_known_hours += one.held_s / HOUR_S
                self.memory_hours += one.held_s * one.use.peak_memory / HOUR_S
        # Records that cannot be read have no owner of their own: all of them count as one.
        self.owners[one.owner] = one.type

    def add_row(self, row: UsedRow, type_: str, count: int) -> None:
        """Add a row of this type, and so many reservations: not always those of the row."""
        self.hours += row[1] / HOUR_MS
        self.idle_hours += row[2] / HOUR_MS
        self.wasted_hours += row[2] / HOUR_MS
        self.add_reservations(type_, count)

    def add_reservations(self, type_: str, count: int) -> None:
        """Add reservations of this type."""
        self.reservations[type_] = self.reservations.get(type_, 0) + count

    def add_use(
        self, known: float, busy: float, idle: float, memory_known: float, memory: float
    ) -> None:
        """Add what the driver told of GPUs, in milliseconds: see `UseRow`."""
        self.known_hours += known / HOUR_MS
        self.busy_hours += busy / HOUR_MS
        self.memory_known_hours += memory_known / HOUR_MS
        self.memory_hours += memory / HOUR_MS
        # The scans' hours of these GPUs are in the rows; the driver knows better.
        self.wasted_hours += (known - busy - idle) / HOUR_MS

    @property
    def wasted_inside(self) -> float:
        """The wasted hours: never more than were held."""
        return min(max(self.wasted_hours, 0.0), self.hours)

    def totals(self, all_hours: float) -> UsageTotals:
        """Return the totals, where everybody has had so many GPU hours."""
        counts = dict(self.reservations)
        for type_ in self.owners.values():
            counts[type_] = counts.get(type_, 0) + 1
        share = self.hours / all_hours if all_hours else 0.0
        return _new_totals(
            self.hours,
            share,
            self.idle_hours,
            {type_: count for type_, count in sorted(counts.items()) if count > 0},
            self.wasted_inside,
            self.busy_hours / self.known_hours if self.known_hours else None,
            self.memory_hours / self.memory_known_hours if self.memory_known_hours else None,
        )
