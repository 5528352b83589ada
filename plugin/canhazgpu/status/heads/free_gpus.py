"""A node's GPUs that nobody holds or uses, and its first waiters, as its counts list them; pure.

`node_status` judges. What the table of these GPUs shows is told here of a node that
`counted_by_counts` counts, without a value for what the table does not show. A test compares the
two for any content.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from canhazgpu.status.heads.counts import CountedNode
from canhazgpu.status.table_cells import MAX_WAITERS_SHOWN

VALUES_PER_GPU = 3
VALUES_PER_WAITER = 4
MAX_INDEX = 999
"""A greater one is not known from any machine, and wider than the table's column."""
MAX_MS = 1e14
MAX_COUNT = 1e6
MAX_USED_MB = 1e12


FreeGpu = tuple[int, int, int | None]
"""Its index, its memory in use (MB), and when it was last released (ms since the epoch), None for
never. There are very many: no class of their own."""


class FirstWaiter(NamedTuple):
    """One of the first in a node's queue: what it wants, as in `Waiter`, and the time in ms."""

    user: str
    gpu_count: int
    profile: str
    since_ms: int


class FreeNode(NamedTuple):
    """A counted node whose free GPUs are listed, in the order of their indices, and its queue."""

    counted: CountedNode
    gpus: tuple[FreeGpu, ...]
    first_waiters: tuple[FirstWaiter, ...] = ()

    @property
    def node(self) -> str:
        """The node's name."""
        return self.counted.node

    @property
    def read_at(self) -> float:
        """When the counts were read, seconds since the epoch by the store's clock."""
        return self.counted.read_at

    @property
    def partitions(self) -> tuple[str, ...] | None:
        """The partitions that it published, None where it never did."""
        return self.counted.partitions


def free_node(counted: CountedNode, counts: Mapping[str, Any]) -> FreeNode | None:
    """Return the node; None where its counts do not list all that the table shows."""
    gpus, waiting = _free_gpus(counts), counted.counts.waiting
    waiters = _first_waiters(counts, waiting) if waiting else ()
    return None if gpus is None or waiters is None else FreeNode(counted, gpus, waiters)


def _free_gpus(counts: Mapping[str, Any]) -> tuple[FreeGpu, ...] | None:
    """Return the GPUs that the counts list; None where they list none, or not as they should."""
    values = counts.get("listed")
    if type(values) is not list or len(values) != VALUES_PER_GPU * counts["free"]:
        return None
    indices, used, released = (values[place::VALUES_PER_GPU] for place in range(VALUES_PER_GPU))
    known = [*filter(None, released)]
    is_so = (
        _are_whole(indices, MAX_INDEX)
        and _are_whole(used, MAX_USED_MB)
        and _are_whole(known, MAX_MS)
        and all(one is None for one in released if not one)
    )
    return tuple(zip(indices, used, released, strict=True)) if is_so else None


def _first_waiters(counts: Mapping[str, Any], waiting: int) -> tuple[FirstWaiter, ...] | None:
    values = counts.get("first")
    if type(values) is not list or len(values) != VALUES_PER_WAITER * min(
        waiting, MAX_WAITERS_SHOWN
    ):
        return None
    users, numbers, profiles, since = (
        values[place::VALUES_PER_WAITER] for place in range(VALUES_PER_WAITER)
    )
    is_so = (
        {*map(type, users), *map(type, profiles)} == {str}
        and _are_whole(numbers, MAX_COUNT)
        and _are_whole(since, MAX_MS)
    )
    return tuple(map(FirstWaiter, users, numbers, profiles, since)) if is_so else None


def _are_whole(values: list[Any], most: float) -> bool:
    """Tell whether all are whole numbers of this range."""
    return not values or (
        {*map(type, values)} == {int} and min(values) >= 0 and max(values) <= most
    )
