"""Who had how much on which node, the most first, of very many users on nodes; pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import itemgetter

from canhazgpu.garbage_collection import paused_collector
from canhazgpu.report.held_time import HeldTime
from canhazgpu.report.node_rows import UsedOnNode, UsedRow, user_of
from canhazgpu.report.usage_sum import UsageSum

_RankedUse = tuple[float, float, str, str, UsageSum | UsedRow]
"""Hours wasted, GPU hours, user, node, and what adds up to these and more.

A row takes a tenth of the memory of a sum, and nearly every user has one row on a node.
"""


def users_on_nodes(
    holds: Sequence[HeldTime], nodes: Sequence[UsedOnNode], *, wasted: bool
) -> Iterator[tuple[tuple[str, str], UsageSum]]:
    """Yield user and node and the sum of what the user had there; no node is in both.

    Those with the most GPU hours come first, or those who `wasted` most, and then by name.
    """
    with paused_collector():
        ranked = _ranked_uses(holds, nodes)
        # Each sort keeps the order of equals: names and numbers compare faster than tuples of both.
        ranked.sort(key=itemgetter(3))
        ranked.sort(key=itemgetter(2))
        ranked.sort(key=itemgetter(1), reverse=True)
        if wasted:
            ranked.sort(key=itemgetter(0), reverse=True)
    for _, _, user, node, used in ranked:
        yield (user, node), _sum_of(used)


def _ranked_uses(holds: Sequence[HeldTime], nodes: Sequence[UsedOnNode]) -> list[_RankedUse]:
    sums: dict[tuple[str, str], UsageSum] = {}
    for one in holds:
        sums.setdefault((one.user, one.node), UsageSum()).add_hold(one)
    ranked = [_ranked(user, node, known) for (user, node), known in sums.items()]
    for on_node in nodes:
        name = on_node.node
        ranked += [_ranked(user, name, used) for user, used in _used_by_user(on_node).items()]
    return ranked


def _ranked(user: str, node: str, used: UsageSum | UsedRow) -> _RankedUse:
    added = _sum_of(used)
    return added.wasted_inside, added.hours, user, node, used


def _used_by_user(node: UsedOnNode) -> dict[str, UsageSum | UsedRow]:
    """Return the row of each user, or a sum where there is more than a row."""
    found: dict[str, UsageSum | UsedRow] = {}
    for row in node.rows:
        user, _, type_ = row[0].rpartition("\t")
        known = found.get(user)
        if known is None:
            found[user] = row
        else:
            found[user] = added = _sum_of(known)
            added.add_row(row, type_, row[3])
    for use in node.uses:
        user = user_of(use[0])
        found[user] = added = _sum_of(found.get(user))
        added.add_use(*use[1:])
    return found


def _sum_of(used: UsageSum | UsedRow | None) -> UsageSum:
    if isinstance(used, UsageSum):
        return used
    added = UsageSum()
    if used is not None:
        added.add_row(used, used[0].rpartition("\t")[2], used[3])
    return added
