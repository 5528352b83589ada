"""The probe of this node: one scan in a bounded child, judged by policy."""

from __future__ import annotations

import time

from canhazgpu.config.schema import ValidationConfig
from canhazgpu.errors import ScanError
from canhazgpu.gpu.scan import Scan, scan_from_json, scan_to_json
from canhazgpu.gpu.usage import Usage, usage_of
from canhazgpu.ledger.port import Observation
from canhazgpu.probe.bounded import BoundedChild, BoundedChildError


class NodeProbe:
    """`GpuProbe` over NVML; see `canhazgpu.probe.port.GpuProbe`."""

    def __init__(self, node: str, validation: ValidationConfig) -> None:
        self._node = node
        self._validation = validation

    def start(self) -> PendingNodeScan:
        """See `GpuProbe.start`."""
        return PendingNodeScan(self._node, self._validation)


class PendingNodeScan:
    """`PendingScan` in a child process, which works while the caller does something else."""

    def __init__(self, node: str, validation: ValidationConfig) -> None:
        self._node = node
        self._threshold_mb = validation.memory_threshold_mb
        self._began = time.monotonic()
        self._started_at = time.time()
        self._observation: Observation | None = None
        self._child = _started(node, validation)

    def observe(self) -> Observation:
        """See `PendingScan.observe`; the age counts on with every call."""
        if self._observation is None:
            self._observation = observation_of(self._finish(), self._threshold_mb)
        return Observation(
            self._observation.scan,
            time.monotonic() - self._began,
            self._observation.in_use,
            self._observation.unknown,
        )

    def _finish(self) -> Scan:
        try:
            if isinstance(self._child, BoundedChildError):
                raise self._child
            return scan_from_json(self._child.result())
        except (BoundedChildError, ScanError) as exc:
            took_s = time.monotonic() - self._began
            fault = f"the GPUs could not be read: {exc}"
            return Scan(self._node, self._started_at, took_s, (), fault)


def _started(node: str, validation: ValidationConfig) -> BoundedChild | BoundedChildError:
    try:
        return BoundedChild(lambda: _scan(node, validation.nvml_library), validation.scan_timeout_s)
    except BoundedChildError as exc:
        # A node without room for a process is a fault of the scan, told by `observe`.
        return exc


def observation_of(scan: Scan, threshold_mb: int, age_s: float = 0.0) -> Observation:
    """Judge every GPU of a scan."""
    judged = [(gpu.uuid, usage_of(gpu, threshold_mb)) for gpu in scan.gpus if gpu.uuid]
    return Observation(
        scan,
        age_s,
        in_use=frozenset(uuid for uuid, usage in judged if usage is Usage.IN_USE),
        unknown=frozenset(uuid for uuid, usage in judged if usage is Usage.UNKNOWN),
    )


def _scan(node: str, library: str) -> bytes:
    # Only the child pays for importing pynvml, while its parent imports the store's client.
    from canhazgpu.probe.nvml import read_gpus  # noqa: PLC0415

    started_at, began = time.time(), time.monotonic()
    try:
        gpus, fault = read_gpus(library), None
    except ScanError as exc:
        gpus, fault = (), str(exc)
    return scan_to_json(Scan(node, started_at, time.monotonic() - began, gpus, fault)).encode()
