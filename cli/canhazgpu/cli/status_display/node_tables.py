"""The tables of many nodes, as `table` lays them out where nothing is cut: quick for their rows."""

from __future__ import annotations

from collections.abc import Sequence

from canhazgpu.cli.status_display.free_table import FreeTables
from canhazgpu.cli.status_display.table import HEADINGS, PREFERRED_WIDTHS, table_lines
from canhazgpu.cli.terminal.text import printable
from canhazgpu.status.heads.free_gpus import FreeNode
from canhazgpu.status.heads.node_table import NodeTable
from canhazgpu.status.table_cells import Cells


class NodeTables:
    """Writes the tables, the wide ones where they are so."""

    def __init__(self, *, wide: bool) -> None:
        self._wide = wide
        self._free = FreeTables()
        self._headings = list(HEADINGS)
        if wide:
            self._headings.insert(self._headings.index("DETAILS"), "UTIL")
        self._preferred = [PREFERRED_WIDTHS[one] for one in self._headings]
        self._known: dict[tuple[int, ...], tuple[str, str, str]] = {}

    def lines(self, node: FreeNode | NodeTable) -> list[str]:
        """Return the node's heading, its table and its queue."""
        if isinstance(node, FreeNode):
            return self._free.lines(node)
        lines = [printable(node.heading), *self._table(node)]
        if node.queue:
            lines.append(printable(node.queue))
        return lines

    def _table(self, node: NodeTable) -> Sequence[str]:
        text = "".join(map("".join, node.rows))
        if not (text.isascii() and text.isprintable()):
            return list(
                table_lines(node.rows, None, cut=not self._wide, utilization=node.utilization)
            )
        columns = self._columns(node)
        widths = tuple(
            max(width, *map(len, column))
            for width, column in zip(self._preferred, columns, strict=True)
        )
        heading, dashes, row = self._known.get(widths) or self._laid_out(widths)
        rows = [(row % cells).rstrip() for cells in zip(*columns, strict=True)]
        return [heading, dashes, *rows]

    def _columns(self, node: NodeTable) -> list[tuple[str, ...]]:
        columns: list[tuple[str, ...]] = [*zip(*node.rows, strict=True)]
        if self._wide:
            columns.insert(Cells._fields.index("details"), tuple(node.utilization))
        return columns

    def _laid_out(self, widths: tuple[int, ...]) -> tuple[str, str, str]:
        """Return the two lines above the rows, and the format of a row."""
        row = " ".join(f"%-{width}s" for width in widths)
        # As in `table`: no column follows the last one.
        dashes = ["-" * width for width in (*widths[:-1], min(widths[-1], self._preferred[-1]))]
        headings = (row % tuple(self._headings)).rstrip()
        known = self._known[widths] = headings, (row % tuple(dashes)).rstrip(), row
        return known
