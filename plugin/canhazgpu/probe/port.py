"""The port for reading a node's GPUs."""

from __future__ import annotations

from typing import Protocol

from canhazgpu.ledger.port import Observation


class PendingScan(Protocol):
    """A scan that was started."""

    def observe(self) -> Observation:
        """Wait for the scan, at most until its deadline; return it with each GPU's use and health.

        Never raises for a fault of the GPUs or the driver: the scan then has the fault, and a GPU
        that could not be read is unknown.
        """
        ...


class GpuProbe(Protocol):
    """Reads the GPUs of this node."""

    def start(self) -> PendingScan:
        """Start a scan and return at once."""
        ...
