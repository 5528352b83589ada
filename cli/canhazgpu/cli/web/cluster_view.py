"""What a request for the cluster asks for: a filter, an order, a portion of the nodes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from canhazgpu.cli.options.status_filter import STATES, parse_status_filter
from canhazgpu.cli.web.tiles import is_stale, trouble_of
from canhazgpu.errors import InputError
from canhazgpu.gpu.usage import GpuState
from canhazgpu.status.suggestion import suggestion
from canhazgpu.status.summary import summarize
from canhazgpu.status.unknown_values import refuse_unknown_values

if TYPE_CHECKING:
    from canhazgpu.status.node_status import NodeStatus
    from canhazgpu.status.status_filter import StatusFilter

ORDERS = {"name": "by name", "free": "most free first", "trouble": "trouble first"}
ROWS_UP_TO, TILES_UP_TO = 8, 400
"""So many nodes are shown with a row for each GPU; so many with a tile that names the node. Of more
there are the symbols alone."""
PORTIONS = {"rows": ROWS_UP_TO, "tiles": TILES_UP_TO, "dots": 1000}
"""Nodes on one page, by how they are drawn."""
MAX_VALUE = 200
"""Characters of a value; no name is longer."""
_FIELDS = ("state", "user", "partition", "model")


@dataclass(frozen=True, slots=True)
class ClusterView:
    """What is asked for; `page` counts from 1. `values` are the filter's, as they were given."""

    values: tuple[tuple[str, str], ...] = ()
    order: str = "name"
    page: int = 1
    drawing: str = ""

    @property
    def filter(self) -> StatusFilter | None:
        """The filter, None where nothing is asked for."""
        given: dict[str, list[str]] = {f"{one}s": [] for one in _FIELDS}
        for name, value in self.values:
            given[f"{name}s"].append(value)
        return parse_status_filter({**given, "free": False})

    def value(self, name: str) -> str:
        """Return what was given for a field of the form, "" for nothing."""
        return next((value for field, value in self.values if field == name), "")

    def query(self, **changed: str) -> str:
        """Return this view as the query of an address, with other values; "" removes one."""
        pairs = dict(self.values)
        pairs |= {"order": "" if self.order == "name" else self.order, "draw": self.drawing}
        pairs |= {"page": "" if self.page == 1 else str(self.page)}
        pairs |= changed
        text = urlencode({name: value for name, value in pairs.items() if value}, errors="replace")
        return f"?{text}" if text else ""


@dataclass(frozen=True, slots=True)
class Portion:
    """The nodes on one page, and what there is on all pages.

    `counts` are the GPUs that the filter shows by state. `troubled` are the first of the nodes that
    need a look, of `troubled_count`.
    """

    nodes: Sequence[NodeStatus]
    node_count: int
    counts: Mapping[str, int]
    intruded: int
    waiting: int
    troubled: Sequence[tuple[str, str]]
    troubled_count: int
    drawing: str
    page: int
    pages: int

    @property
    def gpu_count(self) -> int:
        """The number of GPUs that the filter shows."""
        return sum(self.counts.values())


def parse_view(query: Iterable[tuple[str, str]]) -> ClusterView:
    """Return the view of a query; raises `InputError` for a value that nothing can have."""
    values: dict[str, str] = {}
    order, page, drawing = "name", 1, ""
    for name, raw in query:
        value = raw.strip()
        if len(value) > MAX_VALUE:
            raise InputError(f"the value of {name[:20]!r} is too long")
        if name == "free" and value:
            values["state"] = "available"
        elif name in _FIELDS and value:
            values[name] = value
        elif name == "order" and value:
            order = _one_of(value, tuple(ORDERS), "order")
        elif name == "draw" and value:
            drawing = _one_of(value, tuple(PORTIONS), "way to draw")
        elif name == "page" and value:
            page = _page_number(value)
    if state := values.get("state"):
        values["state"] = _one_of(state.lower(), tuple(STATES), "state")
    return ClusterView(tuple(values.items()), order, page, drawing)


def portion_of(nodes: Sequence[NodeStatus], view: ClusterView) -> Portion:
    """Return the nodes to show.

    Raises `InputError` for a user or a partition that nobody has, and for a page that is not there.
    """
    chosen, shown = view.filter, list(nodes)
    if chosen is not None:
        refuse_unknown_values(chosen, nodes)
        shown = list(chosen.apply(nodes))
    counts = Counter(gpu.state.value for node in shown for gpu in node.gpus)
    troubled = [(one.node, text) for one in shown if (text := _trouble(one))]
    drawing = view.drawing or _drawing_for(len(shown))
    size = PORTIONS[drawing]
    pages = max(-(-len(shown) // size), 1)
    if view.page > pages:
        raise InputError(f"there is no page {view.page}: the last one is {pages}")
    ordered = _ordered(shown, view.order)
    return Portion(
        nodes=ordered[(view.page - 1) * size : view.page * size],
        node_count=len(shown),
        counts={one.value: counts[one.value] for one in GpuState},
        intruded=sum(bool(gpu.intruders) for node in shown for gpu in node.gpus),
        waiting=sum(len(node.queue) for node in shown),
        troubled=troubled[:8],
        troubled_count=len(troubled),
        drawing=drawing,
        page=view.page,
        pages=pages,
    )


def _drawing_for(count: int) -> str:
    if count <= ROWS_UP_TO:
        return "rows"
    return "tiles" if count <= TILES_UP_TO else "dots"


def _trouble(node: NodeStatus) -> str:
    # Of very many nodes few have any: those are looked at in full.
    states = {gpu.state for gpu in node.gpus}
    quiet = states <= {GpuState.AVAILABLE, GpuState.RESERVED}
    if quiet and not (node.fault or node.lacks_gpus or node.hooks_outage or is_stale(node)):  # noqa: SIM102 - two questions
        if not any(gpu.intruders for gpu in node.gpus):
            return ""
    return trouble_of(node, summarize(node))


def _ordered(nodes: list[NodeStatus], order: str) -> list[NodeStatus]:
    if order == "free":
        return sorted(nodes, key=lambda node: (-_free(node), node.node))
    if order == "trouble":
        return sorted(nodes, key=lambda node: (not _trouble(node), node.node))
    return nodes


def _free(node: NodeStatus) -> int:
    return sum(gpu.state is GpuState.AVAILABLE for gpu in node.gpus)


def _one_of(value: str, known: Sequence[str], what: str) -> str:
    if value not in known:
        raise InputError(f"there is no {what} {value!r}; {suggestion(value, known)}")
    return value


def _page_number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 0 < int(text[:9]) == int(text)):
        raise InputError(f"{text!r} is no number of a page")
    return int(text)
