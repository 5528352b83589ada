"""Scan by one source in a bounded child; every failure becomes a scan with a fault."""

from __future__ import annotations

import time

from canhazgpu.errors import ScanError
from canhazgpu.gpu.scan import Scan, scan_from_json, scan_to_json
from canhazgpu.probe import fault_messages
from canhazgpu.probe.bounded_child import BoundedChild, BoundedChildError
from canhazgpu.probe.sources import GpuSource


class SourceScan:
    """A started scan by one source; it ends with a result or at the time-out."""

    def __init__(self, node: str, source: GpuSource, timeout_s: float) -> None:
        self._node = node
        self._source = source
        self._began = time.monotonic()
        self._started_at = time.time()
        self._child: BoundedChild | BoundedChildError
        try:
            self._child = BoundedChild(lambda: _read_source(node, source), timeout_s)
        except BoundedChildError as exc:
            # A node that cannot start another process is a fault of the scan: see `result`.
            self._child = exc

    def result(self) -> Scan:
        """Wait for the scan; a source that does not work is its fault. Call it once."""
        if isinstance(self._child, BoundedChildError):
            return self._failed_scan(str(self._child))
        try:
            return scan_from_json(self._child.result())
        except BoundedChildError as exc:
            return self._failed_scan(fault_messages.child_fault(str(exc)))
        except ScanError as exc:
            return self._failed_scan(str(exc))

    def _failed_scan(self, fault: str) -> Scan:
        took_s = time.monotonic() - self._began
        return Scan(self._node, self._started_at, took_s, (), fault, self._source.name)


def _read_source(node: str, source: GpuSource) -> bytes:
    started_at, began = time.time(), time.monotonic()
    try:
        gpus, fault = source.read(), None
    except ScanError as exc:
        gpus, fault = (), str(exc)
    took_s = time.monotonic() - began
    return scan_to_json(Scan(node, started_at, took_s, gpus, fault, source.name)).encode()
