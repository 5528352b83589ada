"""The tables of free GPUs, as `table` lays them out where nothing is cut: quick for many nodes."""

from __future__ import annotations

from canhazgpu.cli.status_display.table import HEADINGS, PREFERRED_WIDTHS, table_lines
from canhazgpu.cli.terminal.text import printable
from canhazgpu.durations import short_duration_text
from canhazgpu.gpu.usage import GpuState, memory_text
from canhazgpu.ledger.values import wanted_text
from canhazgpu.status.heads.free_gpus import FreeNode
from canhazgpu.status.table_cells import STATUS_WORDS, Cells, first_waiters_text, waiter_text

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
        self._places: dict[int, str] = {}
        self._times: dict[int | None, str] = {}
        self._used: dict[int, str] = {}

    def lines(self, node: FreeNode) -> list[str]:
        """Return the node's heading, its table and its queue."""
        lines = [printable(f"{node.node} ({'; '.join(node.counted.counts.notes)})"), *self._heading]
        places, used, times, read_at = self._places, self._used, self._times, node.read_at
        # A loop over every GPU of the cluster: texts that are known are taken without a call.
        for index, used_mb, released_ms in node.gpus:
            seconds = None if released_ms is None else int(read_at - released_ms / 1000)
            place = places.get(index) or self._place(index)
            details = times.get(seconds) or self._details(seconds)
            lines.append(f"{place}{details}{used.get(used_mb) or self._validation(used_mb)}")
        if node.first_waiters:
            waiting = node.counted.counts.waiting
            lines.append(printable(first_waiters_text(self._waiters(node), waiting)))
        return lines

    def _waiters(self, node: FreeNode) -> list[str]:
        return [
            waiter_text(
                one.user,
                wanted_text(one.gpu_count, one.profile),
                node.read_at - one.since_ms / 1000,
            )
            for one in node.first_waiters
        ]

    def _place(self, index: int) -> str:
        known = self._places[index] = f"{index:<{self._gpu_width}} {self._middle} "
        return known

    def _details(self, seconds: int | None) -> str:
        text = "" if seconds is None else f"free for {short_duration_text(seconds)}"
        known = self._times[seconds] = f"{text:<{self._details_width}} "
        return known

    def _validation(self, used_mb: int) -> str:
        known = self._used[used_mb] = f"{memory_text(used_mb)} used"
        return known
