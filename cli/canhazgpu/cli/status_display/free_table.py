"""The tables of free GPUs, as `table` lays them out where nothing is cut: quick for many nodes."""

from __future__ import annotations

from collections.abc import Iterator

from canhazgpu.cli.status_display.table import HEADINGS, PREFERRED_WIDTHS, table_lines
from canhazgpu.cli.terminal.text import printable
from canhazgpu.durations import short_duration_text
from canhazgpu.gpu.usage import GpuState, memory_text
from canhazgpu.status.heads.free_gpus import FreeNode
from canhazgpu.status.table_cells import STATUS_WORDS, Cells, waiters_text

_FREE = Cells("", STATUS_WORDS[GpuState.AVAILABLE], "", "", "", "", "", "")


class FreeTables:
    """Writes the tables of many nodes; texts that many of them have are written once."""

    def __init__(self) -> None:
        # All cells of free GPUs fit into the usual columns.
        self._heading = tuple(table_lines([], None))
        widths = [PREFERRED_WIDTHS[one] for one in HEADINGS]
        self._gpu_width, *between, self._details_width, _ = widths
        cells = zip(_FREE[1:-2], between, strict=True)
        self._middle = " ".join(f"{text:<{width}}" for text, width in cells)
        self._times: dict[int | None, str] = {}
        self._used: dict[int, str] = {}

    def lines(self, node: FreeNode) -> Iterator[str]:
        """Yield the node's heading, its table and its queue."""
        yield printable(f"{node.node} ({'; '.join(node.counted.counts.notes)})")
        yield from self._heading
        for index, used_mb, released_ms in node.gpus:
            yield (
                f"{index:<{self._gpu_width}} {self._middle} "
                f"{self._details(released_ms, node.read_at)} {self._validation(used_mb)}"
            )
        if node.queue:
            yield printable(waiters_text(node.queue, {}, node.read_at))

    def _details(self, released_ms: int | None, read_at: float) -> str:
        seconds = None if released_ms is None else int(read_at - released_ms / 1000)
        known = self._times.get(seconds)
        if known is None:
            text = "" if seconds is None else f"free for {short_duration_text(seconds)}"
            known = self._times[seconds] = f"{text:<{self._details_width}}"
        return known

    def _validation(self, used_mb: int) -> str:
        known = self._used.get(used_mb)
        if known is None:
            known = self._used[used_mb] = f"{memory_text(used_mb)} used"
        return known
