"""Add up GPU hours, reservations and idle time, by user and by node; pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.report.held_time import HeldTime, TimeSpan
from canhazgpu.report.node_rows import UsedOnNode, UsedRow, user_of

K = TypeVar("K", bound=Hashable)
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


@dataclass(frozen=True, slots=True)
class Report:
    """The totals within a time span; the most GPU hours come first, or the most `wasted`."""

    span: TimeSpan
    total: UsageTotals
    by_user: Mapping[str, UsageTotals]
    by_node: Mapping[str, UsageTotals]
    _holds: Sequence[HeldTime]
    _nodes: Sequence[UsedOnNode]
    _all_hours: float
    wasted: bool = False

    @property
    def knows_use(self) -> bool:
        """Whether the driver's accounting tells of any job in it."""
        return self.total.mean_utilization is not None

    def by_user_and_node(self) -> dict[tuple[str, str], UsageTotals]:
        """Return the totals of each user on each node; there may be very many."""
        groups: dict[tuple[str, str], _Group] = {}
        for one in self._holds:
            groups.setdefault((one.user, one.node), _Group()).add_hold(one)
        for node in self._nodes:
            for row in node.rows:
                user, _, type_ = row[0].rpartition("\t")
                groups.setdefault((user, node.node), _Group()).add_row(row, type_, row[3])
            for use in node.uses:
                groups.setdefault((user_of(use[0]), node.node), _Group()).add_use(*use[1:])
        return _sorted_totals(groups, self._all_hours, wasted=self.wasted)


class _Group:
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
        self.reservations: Counter[str] = Counter()

    def add_hold(self, one: HeldTime) -> None:
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
        self.hours += row[1] / HOUR_MS
        self.idle_hours += row[2] / HOUR_MS
        self.wasted_hours += row[2] / HOUR_MS
        self.reservations[type_] += count

    def add_use(
        self, known: float, busy: float, idle: float, memory_known: float, memory: float
    ) -> None:
        self.known_hours += known / HOUR_MS
        self.busy_hours += busy / HOUR_MS
        self.memory_known_hours += memory_known / HOUR_MS
        self.memory_hours += memory / HOUR_MS
        # The scans' hours of these GPUs are in the rows; the driver knows better.
        self.wasted_hours += (known - busy - idle) / HOUR_MS

    def totals(self, all_hours: float) -> UsageTotals:
        counts = self.reservations + Counter(self.owners.values())
        share = self.hours / all_hours if all_hours else 0.0
        return UsageTotals(
            self.hours,
            share,
            self.idle_hours,
            dict(sorted(counts.items())),
            min(max(self.wasted_hours, 0.0), self.hours),
            self.busy_hours / self.known_hours if self.known_hours else None,
            self.memory_hours / self.memory_known_hours if self.memory_known_hours else None,
        )


def build_report(
    holds: Iterable[HeldTime],
    span: TimeSpan,
    users: Collection[str] = (),
    nodes: Iterable[UsedOnNode] = (),
    *,
    wasted: bool = False,
) -> Report:
    """Return the report of these users, or of all; shares are always of all users' hours.

    `holds` are of nodes whose history was read, `nodes` are those that count themselves. A report
    on what was `wasted` has those first who wasted most.
    """
    everything, used = list(holds), list(nodes)
    all_hours = sum(one.held_s for one in everything) / HOUR_S
    all_hours += sum(one.held_ms for one in used) / HOUR_MS
    if users:
        everything = [one for one in everything if one.user in users]
        used = [one for one in (node.only(users) for node in used) if one.rows or one.uses]
    total, by_user = _by_user(everything, used)
    return Report(
        span,
        total.totals(all_hours),
        _sorted_totals(by_user, all_hours, wasted=wasted),
        _sorted_totals(_by_node(everything, used), all_hours, wasted=wasted),
        everything,
        used,
        all_hours,
        wasted,
    )


def _by_user(
    holds: Sequence[HeldTime], nodes: Sequence[UsedOnNode]
) -> tuple[_Group, dict[str, _Group]]:
    total, groups = _Group(), dict[str, _Group]()
    for one in holds:
        total.add_hold(one)
        groups.setdefault(one.user, _Group()).add_hold(one)
    # Of very many rows, few differ in user and type.
    sums: dict[str, list[float]] = {}
    for node in nodes:
        for key, held_ms, idle_ms, _, led in node.rows:
            known = sums.get(key)
            if known is None:
                sums[key] = [held_ms, idle_ms, led]
            else:
                known[0] += held_ms
                known[1] += idle_ms
                known[2] += led
    for key, (all_held_ms, all_idle_ms, all_led) in sums.items():
        user, _, type_ = key.rpartition("\t")
        for group in (total, groups.setdefault(user, _Group())):
            group.add_row((key, all_held_ms, all_idle_ms, 0, 0), type_, int(all_led))
    for user, amounts in _use_sums(nodes).items():
        for group in (total, groups.setdefault(user, _Group())):
            group.add_use(*amounts)
    return total, groups


def _use_sums(nodes: Sequence[UsedOnNode]) -> dict[str, list[float]]:
    """Return what the driver told of each user's GPUs: few differ, of very many rows."""
    sums: dict[str, list[float]] = {}
    for node in nodes:
        for key, known_ms, busy_ms, idle_ms, memory_known_ms, memory_ms in node.uses:
            found = sums.get(key)
            if found is None:
                sums[key] = [known_ms, busy_ms, idle_ms, memory_known_ms, memory_ms]
            else:
                found[0] += known_ms
                found[1] += busy_ms
                found[2] += idle_ms
                found[3] += memory_known_ms
                found[4] += memory_ms
    of_users: dict[str, list[float]] = {}
    for key, amounts in sums.items():
        known = of_users.setdefault(user_of(key), [0.0] * 5)
        of_users[user_of(key)] = [a + b for a, b in zip(known, amounts, strict=True)]
    return of_users


def _by_node(holds: Sequence[HeldTime], nodes: Sequence[UsedOnNode]) -> dict[str, _Group]:
    groups: dict[str, _Group] = {}
    for one in holds:
        groups.setdefault(one.node, _Group()).add_hold(one)
    for node in nodes:
        group = groups.setdefault(node.node, _Group())
        group.hours += node.held_ms / HOUR_MS
        group.idle_hours += node.idle_ms / HOUR_MS
        group.wasted_hours += node.idle_ms / HOUR_MS
        group.reservations.update(node.reservations)
        if node.uses:
            _, *columns = zip(*node.uses, strict=True)
            group.add_use(*map(sum, columns))
    return groups


def _sorted_totals(
    groups: Mapping[K, _Group], all_hours: float, *, wasted: bool = False
) -> dict[K, UsageTotals]:
    totals = [(name, group.totals(all_hours)) for name, group in groups.items()]

    def most(one: UsageTotals) -> float:
        return one.wasted_hours if wasted else one.gpu_hours

    return dict(sorted(totals, key=lambda one: (-most(one[1]), -one[1].gpu_hours, one[0])))
