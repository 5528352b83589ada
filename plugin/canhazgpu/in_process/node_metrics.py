"""Write a node's metrics for node_exporter's textfile collector, as `metrics.textfile` says.

With `metrics.publish` what is counted goes into the store, too, for the page; the counts are the
same ones.

The library that writes the format takes longer to import than a hook runs. So hooks and the agent's
handlers never import it: the agent has a process for it, and the health check of a node without an
agent writes in the end.
"""

from __future__ import annotations

import json
import math
import os
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from canhazgpu.errors import CanhazgpuError, NodeStateError, StoreError, error_text
from canhazgpu.in_process.adapters import Adapters
from canhazgpu.in_process.book.published_view import hooks_outage, view_without_store
from canhazgpu.in_process.book.store_ledgers import book_checked_ledger
from canhazgpu.in_process.grants.refused_requests import METRICS_DIRECTORY, take_refused
from canhazgpu.ledger.values import RECORD_ERRORS
from canhazgpu.logfmt import log_line
from canhazgpu.node.identity import node_name, state_dir
from canhazgpu.node.state_files import (
    make_directory,
    read_if_owned,
    try_file_lock,
    write_atomically,
)
from canhazgpu.node.system_log import write_syslog
from canhazgpu.probe.node_probe import usage_policy
from canhazgpu.untrusted_directory import untrusted_directory

if TYPE_CHECKING:
    from canhazgpu.config.schema import Config
    from canhazgpu.ledger.values import NodeView
    from canhazgpu.metrics.counts import HistoryCounts
    from canhazgpu.service.jobs import CheckRequest
    from canhazgpu.status.node_status import NodeStatus

COUNTS_FILE = "counts.json"
PUBLISH_EVERY_S = 55.0
"""A scrape of the page comes less often, and the store of a large cluster gets as many."""
FILE_MODE = 0o644
"""node_exporter is no root."""
WITHOUT_LIBRARY = "prometheus-client is not installed: pip install 'canhazgpu[metrics]'"


class NodeMetricsWriter:
    """Writes the metrics of one node, any number of times."""

    def __init__(self, node: str, adapters: Adapters) -> None:
        self._node = node
        self._adapters = adapters
        self._last_view: NodeView | None = None
        self._published_at = -math.inf

    def write(self, config: Config, agent_children: int | None = None) -> None:
        """Write the file as a whole, unless another process does. Raises `CanhazgpuError`."""
        publishes = config.metrics.publishes_counters and (
            time.monotonic() >= self._published_at + PUBLISH_EVERY_S
        )
        if not (config.metrics.textfile or publishes):
            return
        directory = state_dir(config.node, self._node) / METRICS_DIRECTORY
        try:
            make_directory(directory)
            lock = try_file_lock(directory / ".lock")
            if lock is None:
                return
            try:
                view, store_up = self._view(config) if config.metrics.textfile else (None, True)
                counts = self._counts(config, directory / COUNTS_FILE, store_up=store_up)
                if publishes and store_up:
                    self._publish(config, counts)
                if view is not None:
                    status = self._status(config, view, store_up=store_up)
                    self._write_file(config, self._metrics(config, status, counts, agent_children))
            finally:
                os.close(lock)
        except OSError as exc:
            raise NodeStateError(f"{directory}: {exc.strerror or exc}") from exc

    def _publish(self, config: Config, counts: HistoryCounts) -> None:
        """Put the counts into the store. One that is away gets them the next time."""
        from canhazgpu.ledger.store.connect import Role  # noqa: PLC0415 - not on every node
        from canhazgpu.ledger.store.totals.counters import NodeCounters  # noqa: PLC0415

        text = json.dumps(counts.to_dict(), separators=(",", ":"))
        with suppress(StoreError):
            NodeCounters(config.store, Role.WRITE).publish(self._node, text)
            self._published_at = time.monotonic()

    def _write_file(self, config: Config, content: bytes) -> None:
        file = Path(config.metrics.textfile)
        try:
            with untrusted_directory(file.parent) as place:
                place.replace(file.name, content, FILE_MODE)
        except OSError as exc:
            raise NodeStateError(f"{file}: {exc.strerror or exc}") from exc

    def _status(self, config: Config, view: NodeView, *, store_up: bool) -> NodeStatus:
        from canhazgpu.status.node_status import node_status  # noqa: PLC0415 - not on every node

        return node_status(
            view,
            usage_policy(config.validation),
            expected_gpus=config.validation.expected_gpus,
            reservations_known=store_up,
        )

    def _metrics(
        self,
        config: Config,
        status: NodeStatus,
        counts: HistoryCounts,
        agent_children: int | None,
    ) -> bytes:
        try:
            from canhazgpu.metrics.exposition import node_metrics  # noqa: PLC0415 - slow to import, and not on every node
            from canhazgpu.metrics.node_series import NodeFacts  # noqa: PLC0415
        except ImportError as exc:
            raise NodeStateError(WITHOUT_LIBRARY) from exc
        outage = hooks_outage(self._node, config)
        away_s = max(time.time() - outage.since, 0.0) if outage else 0.0
        return node_metrics(status, NodeFacts(self._node, away_s, agent_children), counts)

    def _view(self, config: Config) -> tuple[NodeView, bool]:
        """Return the node's view, and whether the store gave it; else what was last known."""
        try:
            reader = self._adapters.reader(config)
            view = book_checked_ledger(self._node, config, reader).read_nodes([self._node])[0]
        except StoreError:
            own = view_without_store(self._node, config)
            known = self._last_view
            held = {**(known.reservations if known else {}), **own.reservations}
            return (replace(known, reservations=held) if known else own), False
        self._last_view = view
        return view, True

    def _counts(self, config: Config, path: Path, *, store_up: bool) -> HistoryCounts:
        """Return what the history tells since the counting began, and keep it in the file."""
        from canhazgpu.ledger.store.connect import Role  # noqa: PLC0415 - as above
        from canhazgpu.ledger.store.history.counting import HistoryTail  # noqa: PLC0415

        counts = _read_counts(path)
        if refused := take_refused(path.parent):
            counts.add_refused(refused)
            write_atomically(path, json.dumps(counts.to_dict()).encode())
        if not store_up:
            return counts
        tail = HistoryTail(config.store, Role.READ, self._node)
        with suppress(StoreError):
            if counts.through:
                counts.add(tail.after(counts.through))
            else:
                counts.through = tail.last_id()
            write_atomically(path, json.dumps(counts.to_dict()).encode())
        return counts


def write_at_check(request: CheckRequest) -> None:
    """Write the metrics after the health check of a node without an agent; a failure is logged."""
    adapters, node = Adapters(request.environment), ""
    try:
        config = adapters.effective_config().config
        if config.metrics.textfile or config.metrics.publishes_counters:
            node = node_name(config.node, request.environment)
            NodeMetricsWriter(node, adapters).write(config)
    except Exception as exc:
        log_failure(node, exc)


def log_failure(node: str, exc: Exception) -> None:
    """Log that the metrics were not written, and why."""
    why = error_text(exc) if isinstance(exc, CanhazgpuError) else repr(exc)
    write_syslog(log_line("metrics-not-written", node=node, reason=why))


def _read_counts(path: Path) -> HistoryCounts:
    """Return the counts in the file; new ones where there is none, or none that can be read."""
    from canhazgpu.metrics.counts import HistoryCounts, counts_from_dict  # noqa: PLC0415 - as above

    content = read_if_owned(path)
    try:
        return HistoryCounts() if content is None else counts_from_dict(json.loads(content))
    except RECORD_ERRORS:
        return HistoryCounts()
