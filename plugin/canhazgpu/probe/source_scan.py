"""Scan by one source in a bounded child; every failure becomes a scan with a fault."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from canhazgpu.errors import ScanError
from canhazgpu.gpu.scan import Scan
from canhazgpu.gpu.scan_json import scan_from_json, scan_to_json
from canhazgpu.probe import fault_messages
from canhazgpu.probe.bounded_child import BoundedChild, BoundedChildError
from canhazgpu.probe.sources import GpuSource


class PendingSourceScan(Protocol):
    """A started scan by one source."""

    def result(self) -> Scan:
        """Wait for the scan, at most until its time-out. Call it once.

        Never raises: a source that does not work is the scan's fault.
        """
        ...


StartSourceScan = Callable[[str, GpuSource, float], PendingSourceScan]
"""Takes the node's name, the source and the time-out in seconds; returns at once."""


class SourceScan:
    """`PendingSourceScan` in a bounded child of this process."""

    def __init__(self, node: str, source: GpuSource, timeout_s: float) -> None:
        self._failure = ScanFailure(node, source.name)
        self._child: BoundedChild | BoundedChildError
        try:
            self._child = BoundedChild(lambda: _read_source(node, source), timeout_s)
        except BoundedChildError as exc:
            # A node that cannot start another process is a fault of the scan: see `result`.
            self._child = exc

    def result(self) -> Scan:
        """See `PendingSourceScan.result`."""
        if isinstance(self._child, BoundedChildError):
            return self._failure.scan(str(self._child))
        try:
            return scan_from_json(self._child.result())
        except BoundedChildError as exc:
            return self._failure.scan(fault_messages.child_fault(str(exc)))
        except ScanError as exc:
            return self._failure.scan(str(exc))


class ScanFailure:
    """Makes the scan of a source that did not work; it began when this was made."""

    def __init__(self, node: str, source: str) -> None:
        self._node = node
        self._source = source
        self._began = time.monotonic()
        self._started_at = time.time()

    def scan(self, fault: str) -> Scan:
        """Return the scan with this fault."""
        took_s = time.monotonic() - self._began
        return Scan(self._node, self._started_at, took_s, (), fault, self._source)


def read_source(node: str, source: GpuSource) -> Scan:
    """Scan in this process, which may hang. Never raises for a source that does not work."""
    failure = ScanFailure(node, source.name)
    started_at, began = time.time(), time.monotonic()
    try:
        gpus = source.read()
    except ScanError as exc:
        return failure.scan(str(exc))
    return Scan(node, started_at, time.monotonic() - began, gpus, None, source.name)


def _read_source(node: str, source: GpuSource) -> bytes:
    return scan_to_json(read_source(node, source)).encode()
