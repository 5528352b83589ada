"""Metrics as text that Prometheus reads (https://prometheus.io/docs/instrumenting/exposition_formats/).

Each answer has a registry of its own: what one request saw is not told to the next.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from canhazgpu.metrics.counts import HistoryCounts
from canhazgpu.metrics.gpu_series import GpuSeries
from canhazgpu.metrics.node_series import NodeFacts, counted_series, node_series
from canhazgpu.status.node_status import NodeStatus

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""The media type of the text."""
NOTHING_COUNTED: Mapping[str, HistoryCounts] = MappingProxyType({})


def cluster_metrics(
    statuses: Iterable[NodeStatus],
    counted: Mapping[str, HistoryCounts] = NOTHING_COUNTED,
    *,
    store_up: bool = True,
) -> bytes:
    """Return the metrics of these nodes; `counted` is what nodes have published that count.

    Without `store_up` the store did not serve, and the rest is what was last known.
    """
    series = GpuSeries()
    for status in statuses:
        series.add(status)
    store = GaugeMetricFamily("canhazgpu_store_up", "1 if the store (Redis) answered.", store_up)
    counters = counted_series(counted) if counted else ()
    return exposition([store, *series.collect(), *counters])


def node_metrics(status: NodeStatus, facts: NodeFacts, counts: HistoryCounts) -> bytes:
    """Return the metrics of one node, which it writes itself."""
    series = GpuSeries()
    series.add(status)
    return exposition([*series.collect(), *node_series(facts, counts)])


def exposition(families: Iterable[Metric]) -> bytes:
    """Return these families as text."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(families))
    return generate_latest(registry)


class _Families(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families
