"""The series of nodes' GPUs, by their status; pure.

Names and units are as https://prometheus.io/docs/practices/naming/ says. What is not known has no
series. A series with a job's or user's label exists only while that owner holds the GPU.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from prometheus_client.core import GaugeMetricFamily, Metric

from canhazgpu.gpu.scan import GpuReading
from canhazgpu.gpu.usage import GpuState
from canhazgpu.metrics.label_value import OTHERS, UNKNOWN, label_value
from canhazgpu.status.node_status import GpuStatus, NodeStatus

MAX_USERS = 32
"""Users of one node who are told by name; any number of accounts may start processes."""
BYTES_PER_MB = 1 << 20
"""The driver's MB are MiB."""


class GpuSeries:
    """The series of the GPUs of any number of nodes; `add` takes one node after the other."""

    def __init__(self) -> None:
        self._gpus = _gauge("gpus", "GPUs of the node in each state.", "node", "state")
        self._state = _gauge(
            "gpu_state", "1 for the state that the GPU is in.", "node", "gpu", "uuid", "state"
        )
        self._info = _gauge(
            "gpu_info",
            "1 for each holder of the GPU; one with empty user, job and type if nobody holds it.",
            "node", "gpu", "uuid", "model", "type", "user", "job",
        )  # fmt: skip
        of_gpu = ("node", "gpu", "uuid")
        self._used = _gauge("gpu_memory_used_bytes", "Memory in use.", *of_gpu)
        self._size = _gauge("gpu_memory_total_bytes", "Memory of the GPU.", *of_gpu)
        self._busy = _gauge(
            "gpu_utilization_ratio", "Utilization at the last scan, 0 to 1.", *of_gpu
        )
        self._idle = _gauge(
            "gpu_held_idle_seconds", "For how long the GPU was reserved and unused.", *of_gpu
        )
        self._unreserved = _gauge(
            "unreserved_gpus", "GPUs that the user uses without a reservation.", "node", "user"
        )
        self._quarantine = _gauge(
            "gpu_quarantined", "1 for a GPU in quarantine.", *of_gpu, "reason"
        )
        self._waiting = _gauge("queue_requests", "Requests that wait for GPUs.", "node")
        self._wait = _gauge("queue_longest_wait_seconds", "The longest wait so far.", "node")
        self._expected = _gauge("expected_gpus", "GPUs that the node should have.", "node")
        self._scanned = _gauge(
            "scan_timestamp_seconds", "When the GPUs were last scanned (Unix time).", "node"
        )
        self._fault = _gauge("scan_failed", "1 if the last scan could read no GPU.", "node")

    def add(self, status: NodeStatus) -> None:
        """Add a node. A filter changes nothing: all its GPUs are told."""
        node = [label_value(status.node)]
        states = Counter(gpu.state for gpu in status.all_gpus)
        for state in GpuState:
            self._gpus.add_metric([*node, state.value], states[state])
        for gpu in status.all_gpus:
            self._add_gpu(node, gpu)
        for user, count in _unreserved_users(status.all_gpus):
            self._unreserved.add_metric([*node, user], count)
        waits = [max(status.read_at - one.since, 0.0) for one in status.queue]
        self._waiting.add_metric(node, len(waits))
        self._wait.add_metric(node, max(waits, default=0.0))
        if status.expected_gpus:
            self._expected.add_metric(node, status.expected_gpus)
        if status.scanned_at is not None:
            self._scanned.add_metric(node, status.scanned_at)
        self._fault.add_metric(node, status.fault is not None)

    def collect(self) -> Iterator[Metric]:
        """Yield the families; see `prometheus_client.registry.Collector`."""
        yield from (
            self._gpus, self._state, self._info, self._used, self._size, self._busy, self._idle,
            self._unreserved, self._quarantine, self._waiting, self._wait, self._expected,
            self._scanned, self._fault,
        )  # fmt: skip

    def _add_gpu(self, node: list[str], gpu: GpuStatus) -> None:
        of_gpu = [*node, gpu_label(gpu), label_value(gpu.uuid)]
        self._state.add_metric([*of_gpu, gpu.state.value], 1)
        model = label_value(gpu.reading.name) if gpu.reading else ""
        for one in gpu.holders:
            claim = one.claim
            holder = (claim.type, claim.user, claim.job_id)
            self._info.add_metric([*of_gpu, model, *map(label_value, holder)], 1)
        if gpu.holders:
            self._idle.add_metric(of_gpu, min(one.idle_s for one in gpu.holders))
        else:
            self._info.add_metric([*of_gpu, model, "", "", ""], 1)
        if gpu.quarantine is not None:
            self._quarantine.add_metric([*of_gpu, label_value(gpu.quarantine.reason)], 1)
        if gpu.reading is not None and not gpu.unknown_reason:
            self._add_reading(of_gpu, gpu.reading)

    def _add_reading(self, of_gpu: list[str], reading: GpuReading) -> None:
        if reading.memory_used_mb is not None:
            self._used.add_metric(of_gpu, reading.memory_used_mb * BYTES_PER_MB)
        if reading.memory_total_mb is not None:
            self._size.add_metric(of_gpu, reading.memory_total_mb * BYTES_PER_MB)
        if reading.utilization_percent is not None:
            self._busy.add_metric(of_gpu, reading.utilization_percent / 100)


def gpu_label(gpu: GpuStatus) -> str:
    """Return the index as people read it, ``3`` or ``3:1``; "" where it is not known."""
    if gpu.reading is not None:
        return gpu.reading.display_index
    return "" if gpu.index is None else str(gpu.index)


def _unreserved_users(gpus: Iterable[GpuStatus]) -> list[tuple[str, int]]:
    """Return on how many GPUs each user has processes that no reservation covers."""
    found: Counter[str] = Counter()
    for gpu in gpus:
        processes = gpu.processes if gpu.state is GpuState.UNRESERVED else gpu.intruders
        users = {label_value(one.user) or UNKNOWN for one in processes}
        if gpu.state is GpuState.UNRESERVED and not users:
            users = {UNKNOWN}
        found.update(users)
    # By name where as many GPUs are used, so that the same users are told each time.
    users_first = sorted(found.items(), key=lambda one: (-one[1], one[0]))
    told, others = users_first[:MAX_USERS], users_first[MAX_USERS:]
    return told + ([(OTHERS, sum(count for _, count in others))] if others else [])


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"canhazgpu_{name}", text, labels=labels)
