"""Tables of many nodes are those of one node, for any texts."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from canhazgpu.cli.status_display.node_tables import NodeTables
from canhazgpu.cli.status_display.table import table_lines
from canhazgpu.cli.terminal.text import printable
from canhazgpu.status.heads.node_table import NodeTable
from canhazgpu.status.table_cells import Cells

TEXTS = st.one_of(
    st.text("ab %s", max_size=40), st.sampled_from(["", "jürgen", "日本語", "\x1b[31mred", "a\nb"])
)
ROWS = st.lists(st.builds(Cells, *[TEXTS] * 8), min_size=1, max_size=5)


@given(rows=ROWS, heading=TEXTS, queue=TEXTS, percent=st.sampled_from(["N/A", "100%"]))
@settings(max_examples=200, deadline=None)
def test_a_table_is_laid_out_as_that_of_one_node(
    rows: list[Cells], heading: str, queue: str, percent: str
) -> None:
    for wide in (False, True):
        utilization = [percent] * len(rows) if wide else []
        expected = [
            printable(heading),
            *table_lines(rows, None, cut=not wide, utilization=utilization),
            *([printable(queue)] if queue else []),
        ]
        tables = NodeTables(wide=wide)
        node = NodeTable("n1", 0.0, None, heading, rows, utilization, queue)
        # What is known from the first time changes nothing.
        assert [tables.lines(node), tables.lines(node)] == [expected, expected]
