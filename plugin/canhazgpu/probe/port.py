"""What the core needs of whatever reads a node's GPUs."""

from __future__ import annotations

from typing import Protocol

from canhazgpu.ledger.port import Observation


class PendingScan(Protocol):
    """A scan under way."""

    def observe(self) -> Observation:
        """Wait for the scan, at most until its deadline, and return it with policy's judgement.

        Never raises for a fault of the GPUs or the driver: the scan then carries the fault, and
        what could not be read counts as unknown.
        """
        ...


class GpuProbe(Protocol):
    """Reads the GPUs of this node."""

    def start(self) -> PendingScan:
        """Begin a scan and return at once."""
        ...
