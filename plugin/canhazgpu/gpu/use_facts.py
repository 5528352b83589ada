"""The fact ``use`` of a note: what an owner made of its GPUs; pure. `use_text` describes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from canhazgpu.gpu.accounting import GpuUse
    from canhazgpu.gpu.scan import GpuReading


class UseFacts:
    """The GPUs of one owner, added one after the other; `index` is the one that people read."""

    def __init__(self) -> None:
        self._by_driver: list[list[Any]] = []
        self._by_scans: list[list[Any]] = []
        self._held_s = 0.0
        self._idle_s = 0.0

    def add_by_driver(
        self, index: str, use: GpuUse, reading: GpuReading | None, held_s: float, idle_s: float
    ) -> None:
        """Add a GPU whose use the driver tells; scans found it unused for `idle_s`."""
        total_mb = reading.memory_total_mb if reading else None
        self._by_driver.append([index, *use.amounts(total_mb)])
        self._held_s = max(self._held_s, held_s)
        self._idle_s += idle_s

    def add_by_scans(self, index: str, held_s: float, idle_s: float) -> None:
        """Add a GPU of which only scans tell."""
        self._by_scans.append([index, round(idle_s), round(held_s)])

    def fact(self) -> dict[str, Any]:
        """Return the fact, empty where nothing is known."""
        found: dict[str, Any] = {}
        if self._by_driver:
            times = {"held_ms": round(self._held_s * 1000), "idle_ms": round(self._idle_s * 1000)}
            found = {"driver": self._by_driver, **times}
        if self._by_scans:
            found["scans"] = self._by_scans
        return found
