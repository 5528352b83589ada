"""Render the status: as tables with headings, as a summary, or as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from canhazgpu.cli.status_display.view_options import ViewOptions

if TYPE_CHECKING:
    from canhazgpu.people.revocations import Revocation
    from canhazgpu.service.status import StatusAnswer
    from canhazgpu.status.heads.counts import CountedNode
    from canhazgpu.status.node_status import NodeStatus
    from canhazgpu.status.status_filter import StatusFilter
    from canhazgpu.status.summary import NodeSummary, SummarizedNode


@dataclass(frozen=True, slots=True)
class StatusRenderer(ViewOptions):
    """Renders answers as the options say."""

    def lines(
        self, answer: StatusAnswer, width: int | None, height: int | None = None
    ) -> list[str]:
        """Return the lines of the answer, at least one.

        `width` is that of the terminal in columns, None if there is none. `height` is how many
        lines it has room for, None if that does not matter.
        """
        shown = self.visible_nodes(answer)
        if self.as_json:
            return [self._json_text(answer, shown, indented=width is not None)]
        notes = list(_revocation_lines(answer.nodes, answer.revocations))
        if not (shown or answer.tables or self._counted(answer)):
            return [self._nothing_text(answer), *notes]
        if self.is_summary(answer, height):
            return [*self._summary_lines(answer, width), *notes]
        return [*self._blocks(answer, shown, width), *notes]

    def node_lines(self, answer: StatusAnswer) -> Iterator[str]:
        """Yield a line of JSON for each node to show."""
        from canhazgpu.status.json_format import iso_time, node_line_to_dict  # noqa: PLC0415 - JSON

        lines = [
            (one.node, json.dumps(node_line_to_dict(one), separators=(",", ":")))
            for one in self.visible_nodes(answer)
        ]
        for one in answer.texts:
            lines.append((one.node, f'{{"generated_at":"{iso_time(one.read_at)}",{one.json[1:]}'))
        yield from (line for _, line in sorted(lines))

    def node_texts(self, answer: StatusAnswer) -> Iterator[str]:
        """Yield the JSON of each node to show, as it stands in the document."""
        from canhazgpu.status.json_format import node_to_dict  # noqa: PLC0415 - --json

        texts = [
            (one.node, json.dumps(node_to_dict(one), separators=(",", ":")))
            for one in self.visible_nodes(answer)
        ]
        texts += [(one.node, one.json) for one in answer.texts]
        yield from (text for _, text in sorted(texts))

    def document_around(self, answer: StatusAnswer) -> tuple[str, str]:
        """Return what stands before and after the nodes in the document."""
        head, _, end = self._json_text(answer, (), indented=False).rpartition("]")
        return head, f"]{end}"

    def is_summary(self, answer: StatusAnswer, height: int | None) -> bool:
        """Tell whether `lines` returns the summary."""
        if self.summary is not None:
            return self.summary
        return height is not None and not self.wide and self.tables_height(answer) > height

    def tables_height(self, answer: StatusAnswer) -> int:
        """Return how many lines the tables of several nodes take; 0 for a single node."""
        shown, counted = self.visible_nodes(answer), self._counted(answer)
        if len(shown) + len(counted) < 2:
            return 0
        # The heading, the table's two lines, a blank one between two nodes, the queue.
        lines = sum(4 + one.counts.available + one.counts.reserved.count for one in counted)
        return lines + sum(4 + len(one.gpus) + bool(one.queue) for one in shown) - 1

    def visible_nodes(self, answer: StatusAnswer) -> Sequence[NodeStatus]:
        """Return the nodes to show, each with the GPUs to show."""
        chosen = self._chosen(answer)
        return answer.nodes if chosen is None else chosen.apply(answer.nodes)

    def refuse_unknown_values(self, answer: StatusAnswer) -> None:
        """Raise `InputError` where the filter names what no node knows.

        Without the store nobody knows what the other nodes have.
        """
        if self.filter is not None and answer.store_fault is None:
            from canhazgpu.status.unknown_values import refuse_unknown_values  # noqa: PLC0415 - with a filter

            others = (*answer.counted, *answer.tables, *answer.passed_over)
            refuse_unknown_values(self.filter, answer.nodes, others)

    def comparison_key(self, answer: StatusAnswer) -> object:
        """Return a value that is equal for two answers that show the same."""
        shown = self.visible_nodes(answer)
        if not (self.summary or answer.counted):
            from canhazgpu.status.comparison import comparison_key  # noqa: PLC0415 - only with --watch

            return comparison_key(shown)
        # The notes have ages, which change all the time.
        return tuple(
            (replace(counts, notes=()), one.fault, one.found_gpus, one.reservations_known)
            for one, counts in self._summaries(answer)
        )

    def _counted(self, answer: StatusAnswer) -> Sequence[CountedNode]:
        """Return the counted nodes to show, each with the counts to show."""
        if self.filter is None or not answer.counted:
            return answer.counted
        from canhazgpu.status.heads.counts import shown_by_counts  # noqa: PLC0415 - only with a filter

        return shown_by_counts(answer.counted, self.filter)

    def _chosen(self, answer: StatusAnswer) -> StatusFilter | None:
        if answer.caller is None:
            return self.filter
        from canhazgpu.status.status_filter import StatusFilter  # noqa: PLC0415 - only with --me

        chosen = self.filter or StatusFilter()
        return replace(chosen, users=(*chosen.users, answer.caller))

    def _nothing_text(self, answer: StatusAnswer) -> str:
        from canhazgpu.cli.terminal.text import printable  # noqa: PLC0415 - hardly ever needed

        known = "" if answer.store_fault is None else ", as far as this node knows"
        chosen = self._chosen(answer)
        if chosen is not None and chosen.users and not (chosen.states or chosen.models):
            who = " and ".join(user.user for user in chosen.users)
            verbs = "holds, uses and awaits" if len(chosen.users) == 1 else "hold, use and await"
            where = f" in {','.join(sorted(chosen.partitions))}" if chosen.partitions else ""
            return printable(f"{who} {verbs} no GPU{where}{known}")
        if chosen is not None and chosen.models:
            from canhazgpu.status.unknown_values import models_hint  # noqa: PLC0415

            known += models_hint(chosen.models, answer.nodes, answer.passed_over)
        return printable(f"no GPU matches {self.filter_text}{known}")

    def _summaries(self, answer: StatusAnswer) -> list[tuple[SummarizedNode, NodeSummary]]:
        """Return the nodes to show, sorted by name, and their summaries."""
        from canhazgpu.status.summary import summarize  # noqa: PLC0415 - only for the summary

        found: list[tuple[SummarizedNode, NodeSummary]]
        found = [(one, summarize(one)) for one in self.visible_nodes(answer)]
        found += [(one, one.counts) for one in self._counted(answer)]
        return sorted(found, key=lambda one: one[0].node)

    def _summary_lines(self, answer: StatusAnswer, width: int | None) -> Iterator[str]:
        from canhazgpu.cli.status_display.summary_lines import summary_lines  # noqa: PLC0415 - as it says

        return summary_lines(
            [one for _, one in self._summaries(answer)],
            None if self.wide else width,
            coloured=self.coloured,
            shows_none_free=not self.mine and not (self.filter and self.filter.selects_gpus),
        )

    def _shows_headings(self, answer: StatusAnswer) -> bool:
        # The heading tells the age of a scan; only a scan made now needs none.
        if answer.node_count > 1 or answer.tables:
            return True
        first = answer.nodes[0]
        if not first.live or first.lacks_gpus or first.hooks_outage:
            return True
        if not first.reservations_known:
            return True
        # Without --watch the command ends with this error, so a heading is not needed.
        return self.watching and first.fault is not None

    def _json_text(
        self, answer: StatusAnswer, statuses: Sequence[NodeStatus], *, indented: bool
    ) -> str:
        from canhazgpu.cli.status_display.missing import missing_text  # noqa: PLC0415 - --json
        from canhazgpu.status.json_format import iso_time, status_to_dict  # noqa: PLC0415 - --json

        missing = missing_text(answer) or None
        if self.summary:
            from canhazgpu.status.summary import summary_to_dict  # noqa: PLC0415 - as it says

            document = summary_to_dict(answer.read_at, self._summaries(answer), missing)
        else:
            document = status_to_dict(answer.read_at, statuses, missing)
        if self.mine:
            document["taken"] = [
                {**asdict(one), "at": iso_time(one.at)} for one in answer.revocations
            ]
        if indented and not self.watching:
            return json.dumps(document, indent=2)
        # For a program; with blanks it takes several times as long.
        return json.dumps(document, separators=(",", ":"))

    def _blocks(
        self, answer: StatusAnswer, shown: Sequence[NodeStatus], width: int | None
    ) -> Iterator[str]:
        """Yield the lines of each node, with a blank one between two nodes."""
        headed = self._shows_headings(answer)
        blocks: list[tuple[str, Iterable[str]]]
        blocks = [(one.node, self._node_lines(one, width, headed=headed)) for one in shown]
        if answer.tables:
            from canhazgpu.cli.status_display.node_tables import NodeTables  # noqa: PLC0415 - as it says

            lines_of = NodeTables(wide=self.wide).lines
            blocks += [(one.node, lines_of(one)) for one in answer.tables]
            blocks.sort(key=lambda one: one[0])
        for place, (_, lines) in enumerate(blocks):
            if place:
                yield ""
            yield from lines

    def _node_lines(self, status: NodeStatus, width: int | None, *, headed: bool) -> Iterator[str]:
        from canhazgpu.cli.terminal.text import printable  # noqa: PLC0415 - not with --json
        from canhazgpu.status.table_cells import heading_text, queue_text  # noqa: PLC0415

        if headed:
            yield printable(heading_text(status))
        yield from self._table(status, width)
        if queue := queue_text(status, wide=self.wide):
            yield printable(queue)

    def _table(self, status: NodeStatus, width: int | None) -> Iterator[str]:
        from canhazgpu.cli.status_display.table import table_lines  # noqa: PLC0415 - not with --json
        from canhazgpu.status.table_cells import cells, tones, utilization_text  # noqa: PLC0415

        return table_lines(
            [cells(gpu, status.read_at, wide=self.wide) for gpu in status.gpus],
            width,
            cut=not self.wide,
            utilization=[utilization_text(gpu) for gpu in status.gpus] if self.wide else (),
            tones=[tones(gpu) for gpu in status.gpus] if self.coloured else (),
        )


def _revocation_lines(
    statuses: Sequence[NodeStatus], revocations: Sequence[Revocation]
) -> Iterator[str]:
    if not revocations:
        return
    from canhazgpu.cli.terminal.text import printable  # noqa: PLC0415 - hardly ever needed
    from canhazgpu.people.holdings import gpu_display_indices  # noqa: PLC0415
    from canhazgpu.people.revocations import revocation_text  # noqa: PLC0415

    readings = [gpu.reading for one in statuses for gpu in one.gpus if gpu.reading]
    for one in revocations:
        yield printable(revocation_text(one, gpu_display_indices(readings), statuses[0].read_at))
