"""A node as a tile: a symbol for each GPU, whose shape and colour say its state; pure.

The symbols of one state are one path: a page has thousands of nodes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from canhazgpu.gpu.usage import GpuState
from canhazgpu.status.node_status import GpuStatus, NodeStatus
from canhazgpu.status.summary import NodeSummary, summarize

CELL = 14
"""Width and height of a symbol with its margin, in units of the picture."""
PER_ROW = 8
STALE_S = 900.0
"""A health check scans every few minutes; a node with an older scan may be down."""
INTRUDED = "intruded"
"""The mark on a reserved GPU that others use."""

STATE_WORDS = {
    GpuState.AVAILABLE.value: "available",
    GpuState.RESERVED.value: "in use",
    GpuState.UNRESERVED.value: "in use without reservation",
    GpuState.QUARANTINED.value: "quarantined",
    GpuState.UNKNOWN.value: "unknown",
}
SHAPES = {
    GpuState.AVAILABLE.value: "m1.5 1.5h9v9h-9z",
    GpuState.RESERVED.value: "m0 0h12v12h-12z",
    GpuState.UNRESERVED.value: "m6 0l6 12h-12z",
    GpuState.QUARANTINED.value: "m2 2l8 8m0-8l-8 8",
    GpuState.UNKNOWN.value: "m6 .5l5.5 5.5l-5.5 5.5l-5.5-5.5z",
    INTRUDED: "m6 2.5l3.5 7h-7z",
}
"""A ring, a full square, a triangle, a cross, a ring on its point; a triangle in the square."""


@dataclass(frozen=True, slots=True)
class Picture:
    """Symbols of GPUs: a path for each state, and the size of the whole."""

    paths: tuple[tuple[str, str], ...]
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Tile:
    """A node to draw; `label` says in words what the picture shows.

    `trouble` is what is worth an administrator's look, "" for nothing.
    """

    node: str
    summary: NodeSummary
    picture: Picture
    label: str
    trouble: str
    stale: bool


def picture_of(gpus: Sequence[GpuStatus]) -> Picture:
    """Return the symbols of these GPUs, eight in a row."""
    shapes: dict[str, list[str]] = {}
    for place, gpu in enumerate(gpus):
        row, column = divmod(place, PER_ROW)
        corner = f"M{column * CELL + 1} {row * CELL + 1}"
        shapes.setdefault(gpu.state.value, []).append(corner + SHAPES[gpu.state.value])
        if gpu.intruders:
            shapes.setdefault(INTRUDED, []).append(corner + SHAPES[INTRUDED])
    order = [one for one in SHAPES if one in shapes]
    rows = max(-(-len(gpus) // PER_ROW), 1)
    return Picture(
        tuple((one, "".join(shapes[one])) for one in order),
        min(max(len(gpus), 1), PER_ROW) * CELL,
        rows * CELL,
    )


def symbol(state: str) -> Picture:
    """Return the one symbol of a state, for a legend."""
    paths = [(state, f"M1 1{SHAPES[state]}")]
    if state == INTRUDED:
        paths.insert(0, ("reserved", f"M1 1{SHAPES[GpuState.RESERVED.value]}"))
    return Picture(tuple(paths), CELL, CELL)


def tile_of(node: NodeStatus) -> Tile:
    """Return the tile of a node with the GPUs that a filter shows."""
    found = summarize(node)
    trouble = trouble_of(node, found)
    words = ", ".join((counts_text(node.gpus), *((trouble,) if trouble else ())))
    return Tile(
        node.node,
        found,
        picture_of(node.gpus),
        f"{node.node}: {words}",
        trouble,
        is_stale(node),
    )


def counts_text(gpus: Iterable[GpuStatus]) -> str:
    """Return ``3 available, 5 in use``."""
    counts = Counter(gpu.state.value for gpu in gpus)
    parts = [f"{counts[one]} {word}" for one, word in STATE_WORDS.items() if counts[one]]
    return ", ".join(parts) or "no GPU"


def trouble_of(node: NodeStatus, found: NodeSummary) -> str:
    """Return what an administrator should look at, "" for nothing."""
    parts = []
    if node.fault:
        parts.append(node.fault)
    if node.lacks_gpus:
        parts.append(f"{node.found_gpus} of {node.expected_gpus} GPUs found")
    if found.unreserved.count:
        who = _few(found.unreserved.users)
        parts.append(f"{found.unreserved.count} used without reservation by {who}")
    if found.intruded.count:
        who = _few(found.intruded.users)
        parts.append(f"{found.intruded.count} reserved, and used by {who}")
    if found.quarantined:
        parts.append(f"{found.quarantined} quarantined")
    if found.unknown:
        parts.append(f"{found.unknown} unknown")
    if node.hooks_outage:
        parts.append("its hooks found the store away")
    if is_stale(node):
        parts.append("not scanned lately")
    return "; ".join(parts)


def is_stale(node: NodeStatus) -> bool:
    """Tell whether the node's last scan is old."""
    return node.scanned_at is not None and node.read_at - node.scanned_at > STALE_S


def _few(users: Sequence[str], most: int = 3) -> str:
    more = len(users) - most
    return ", ".join(users[:most]) + (f" and {more} more" if more > 0 else "")
