"""Add up GPU hours, reservations and idle time, by user and by node; pure."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.report.held_time import HeldTime, TimeSpan
from canhazgpu.report.node_rows import UsedOnNode, user_of
from canhazgpu.report.usage_sum import HOUR_MS, HOUR_S, UsageSum, UsageTotals
from canhazgpu.report.users_on_nodes import users_on_nodes

K = TypeVar("K", bound=Hashable)


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

    def by_user_and_node(self) -> Iterator[tuple[tuple[str, str], UsageTotals]]:
        """Yield the totals of each user on each node, sorted as the others.

        There may be very many: each one's totals are made when it is its turn.
        """
        for name, added in users_on_nodes(self._holds, self._nodes, wasted=self.wasted):
            yield name, added.totals(self._all_hours)


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
) -> tuple[UsageSum, dict[str, UsageSum]]:
    total, groups = UsageSum(), dict[str, UsageSum]()
    for one in holds:
        total.add_hold(one)
        groups.setdefault(one.user, UsageSum()).add_hold(one)
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
        for group in (total, groups.setdefault(user, UsageSum())):
            group.add_row((key, all_held_ms, all_idle_ms, 0, 0), type_, int(all_led))
    for user, amounts in _use_sums(nodes).items():
        for group in (total, groups.setdefault(user, UsageSum())):
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


def _by_node(holds: Sequence[HeldTime], nodes: Sequence[UsedOnNode]) -> dict[str, UsageSum]:
    groups: dict[str, UsageSum] = {}
    for one in holds:
        groups.setdefault(one.node, UsageSum()).add_hold(one)
    for node in nodes:
        group = groups.setdefault(node.node, UsageSum())
        group.hours += node.held_ms / HOUR_MS
        group.idle_hours += node.idle_ms / HOUR_MS
        group.wasted_hours += node.idle_ms / HOUR_MS
        for type_, count in node.reservations.items():
            group.add_reservations(type_, count)
        if node.uses:
            _, *columns = zip(*node.uses, strict=True)
            group.add_use(*map(sum, columns))
    return groups


def _sorted_totals(
    groups: Mapping[K, UsageSum], all_hours: float, *, wasted: bool = False
) -> dict[K, UsageTotals]:
    totals = [(name, group.totals(all_hours)) for name, group in groups.items()]

    def most(one: UsageTotals) -> float:
        return one.wasted_hours if wasted else one.gpu_hours

    return dict(sorted(totals, key=lambda one: (-most(one[1]), -one[1].gpu_hours, one[0])))
