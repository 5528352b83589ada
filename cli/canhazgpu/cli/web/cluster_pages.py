"""The pages of the present: the cluster, a node, the queue."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from canhazgpu.cli.terminal.queue_json import queues_to_dict
from canhazgpu.cli.web.answer_cache import MAX_WAIT_S, PAGE_WAIT_S, StillReadError
from canhazgpu.cli.web.cluster_view import ORDERS, ClusterView, parse_view, portion_of
from canhazgpu.cli.web.rendering import segment
from canhazgpu.cli.web.site import UnknownError
from canhazgpu.cli.web.tiles import picture_of, tile_of, trouble_of
from canhazgpu.errors import AgentError, CanhazgpuError, StoreError, UnknownNameError, error_text
from canhazgpu.metrics.counts import published_counts
from canhazgpu.metrics.exposition import CONTENT_TYPE, cluster_metrics
from canhazgpu.people.holdings import gpu_display_indices, gpu_list_text
from canhazgpu.service.queue import NodeQueue
from canhazgpu.status.json_format import status_to_dict
from canhazgpu.status.suggestion import closest
from canhazgpu.status.summary import summarize, summary_to_dict
from canhazgpu.status.table_cells import cells, node_notes, utilization_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request

    from canhazgpu.cli.web.cluster_state import Snapshot
    from canhazgpu.cli.web.cluster_view import Portion
    from canhazgpu.cli.web.site import Site
    from canhazgpu.metrics.counts import HistoryCounts
    from canhazgpu.status.node_status import GpuStatus, NodeStatus

MAX_CHOICES = 300
"""Names that a field of the form offers."""
MAX_KNOWN = 20
"""Names of what exists, on the page that says that something does not."""


class ClusterPages:
    """Answers requests for the cluster, a node and the queue; see `canhazgpu.cli.web.site`."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._metrics: tuple[int, bytes] = (0, b"")
        self._counts: Mapping[str, HistoryCounts] = {}

    def cluster(self, request: Request) -> Response:
        """Return the page of all nodes."""
        view = parse_view(request.query_params.multi_items())
        snapshot = self._site.snapshot()
        return self._site.page(
            request, "cluster.html.j2", lambda: self._cluster_values(view, snapshot)
        )

    def cluster_json(self, request: Request) -> Response:
        """Return the nodes of that page in the form of ``status --json``."""
        view = parse_view(request.query_params.multi_items())
        state, snapshot = self._site.state(waits=True), self._site.snapshot()
        portion = portion_of(snapshot.nodes, view)
        document = status_to_dict(snapshot.generated_at, portion.nodes, state.fault or None)
        answer = self._site.json(document)
        answer.headers["x-total-nodes"] = str(portion.node_count)
        if portion.page < portion.pages:
            following = view.query(page=str(portion.page + 1))
            answer.headers["link"] = f'</cluster.json{following}>; rel="next"'
        return answer

    def summary_json(self, request: Request) -> Response:
        """Return all nodes that the filter shows, in the form of ``status --summary --json``."""
        view = replace(parse_view(request.query_params.multi_items()), page=1)
        state, snapshot = self._site.state(waits=True), self._site.snapshot()
        shown = snapshot.nodes if view.filter is None else view.filter.apply(snapshot.nodes)
        summaries = ((one, summarize(one)) for one in shown)
        document = summary_to_dict(snapshot.generated_at, summaries, state.fault or None)
        return self._site.json(document)

    def node(self, request: Request) -> Response:
        """Return the page of one node."""
        name = request.path_params["node"]
        node, fault = self._node(name)
        return self._site.page(
            request,
            "node.html.j2",
            lambda: {
                "node": node,
                "rows": [row_of(gpu, node) for gpu in node.gpus],
                "picture": picture_of(node.gpus),
                "summary": summarize(node),
                "notes": node_notes(node),
                "trouble": trouble_of(node, summarize(node)),
                "queue": queue_rows([node]),
            },
            fault=fault,
        )

    def node_json(self, request: Request) -> Response:
        """Return one node in the form of ``status --json``."""
        node, fault = self._node(request.path_params["node"], waits=True)
        error = self._site.reader.last.fault or fault or None
        return self._site.json(status_to_dict(node.read_at, [node], error))

    def queue(self, request: Request) -> Response:
        """Return the page of who waits."""
        snapshot = self._site.snapshot()
        return self._site.page(
            request, "queue.html.j2", lambda: {"rows": queue_rows(snapshot.nodes)}
        )

    def queue_json(self, _request: Request) -> Response:
        """Return the nodes where somebody waits, in the form of ``queue --json``."""
        queues = [
            NodeQueue(node.node, node.read_at, node.queue, _indices(node))
            for node in self._site.snapshot(waits=True).nodes
            if node.queue
        ]
        document = queues_to_dict(queues)
        return self._site.json({**document, "error": self._site.reader.last.fault or None})

    def metrics(self, _request: Request) -> Response:
        """Return the state of the whole cluster as metrics; 200 also where the store is away."""
        state, snapshot = self._site.state(waits=True), self._site.snapshot()
        # Of thousands of nodes they are megabytes: several servers that ask get the same ones.
        if self._metrics[0] != state.number:
            counts = self._counts if state.fault else self._read_counts()
            text = cluster_metrics(snapshot.nodes, counts, store_up=not state.fault)
            self._metrics = (state.number, text)
        return Response(self._metrics[1], headers={"content-type": CONTENT_TYPE})

    def _read_counts(self) -> Mapping[str, HistoryCounts]:
        """Return what the nodes have counted; what was known before where the store is away."""
        try:
            pages = list(self._site.open_source().counters())
        except CanhazgpuError:
            return self._counts
        texts = {node: text for page in pages for node, text in page.texts.items()}
        found = {node: published_counts(texts[node]) for node in sorted(texts)}
        self._counts = {node: one for node, one in found.items() if one is not None}
        return self._counts

    def _cluster_values(self, view: ClusterView, snapshot: Snapshot) -> dict[str, Any]:
        portion = portion_of(snapshot.nodes, view)
        rows = portion.drawing == "rows"
        return {
            "view": view,
            "portion": portion,
            "tiles": [tile_of(one) for one in portion.nodes],
            "rows": {n.node: [row_of(gpu, n) for gpu in n.gpus] for n in portion.nodes}
            if rows
            else {},
            "orders": ORDERS,
            "segments": bar_segments(portion),
            "choices": {
                "partition": snapshot.partitions[:MAX_CHOICES],
                "user": snapshot.users[:MAX_CHOICES],
                "model": snapshot.models[:MAX_CHOICES],
            },
        }

    def _node(self, name: str, *, waits: bool = False) -> tuple[NodeStatus, str]:
        """Return the node in full, and the error for which it is only as it was last read."""
        snapshot = self._site.snapshot(waits=waits)
        known = snapshot.by_name.get(name)
        if known is None:
            raise unknown_node(name, snapshot)
        if self._site.reader.last.fault:
            # Whoever gave no answer just now is not waited for.
            return known, ""
        try:
            found = self._site.node(name, MAX_WAIT_S if waits else PAGE_WAIT_S)
        except StillReadError:
            return known, ""
        except (StoreError, AgentError) as exc:
            return known, error_text(exc)
        except UnknownNameError:
            # It was forgotten after the last read.
            raise unknown_node(name, snapshot) from None
        # What the cluster was last read as is newer than what was read of the node before.
        return (known, found.fault) if found.fault else (found.value.nodes[0], "")


def unknown_node(name: str, snapshot: Snapshot) -> UnknownError:
    """Return the error for a name that no node has, with those that exist."""
    names = sorted(snapshot.by_name)
    hint = closest(name, names)
    more = len(names) - MAX_KNOWN
    text = f"there is no node {name!r}. {hint}".strip()
    if more > 0:
        text += f" The first of {len(names)} nodes:"
    return UnknownError(text, [(one, f"/nodes/{segment(one)}") for one in names[:MAX_KNOWN]])


def row_of(gpu: GpuStatus, node: NodeStatus) -> dict[str, Any]:
    """Return what a row of a table has of a GPU."""
    reading = gpu.reading
    used = reading.memory_used_mb if reading else None
    total = reading.memory_total_mb if reading else None
    share = round(100 * used / total, 1) if used is not None and total else None
    users = list(dict.fromkeys(one.claim.user for one in gpu.holders)) or list(
        dict.fromkeys(one.user for one in gpu.processes if one.user)
    )
    return {
        "gpu": gpu,
        "cells": cells(gpu, node.read_at, wide=True),
        "picture": picture_of([gpu]),
        "product": reading.name.removeprefix("NVIDIA ") if reading else "",
        "used_mb": used,
        "total_mb": total,
        "memory_percent": None if share is None else min(max(share, 0.0), 100.0),
        "utilization": utilization_text(gpu),
        "users": users,
        "owners": [
            (one.claim.job_id or one.claim.owner, one.claim.job_name or "") for one in gpu.holders
        ],
        "reason": gpu.unknown_reason,
    }


def queue_rows(nodes: Any) -> list[dict[str, Any]]:
    """Return a row for everybody who waits on these nodes, who waits longest first."""
    rows = [
        {
            "node": node.node,
            "position": position,
            "user": one.user,
            "type": one.owner.partition(":")[0],
            "wants": gpu_list_text(one.gpus, _indices(node)) if one.gpus else one.count_text,
            "since": one.since,
            "waited": max(node.read_at - one.since, 0.0),
        }
        for node in nodes
        for position, one in enumerate(node.queue, 1)
    ]
    return sorted(rows, key=lambda row: (-row["waited"], row["node"], row["position"]))


def bar_segments(portion: Portion) -> list[tuple[str, float, float]]:
    """Return the bar of all GPUs: each state with its beginning and length in percent."""
    found, at = [], 0.0
    for state, count in portion.counts.items():
        length = 100.0 * count / (portion.gpu_count or 1)
        if count:
            found.append((state, round(at, 3), round(length, 3)))
        at += length
    return found


def _indices(node: NodeStatus) -> dict[str, str]:
    return dict(gpu_display_indices([gpu.reading for gpu in node.gpus if gpu.reading]))
