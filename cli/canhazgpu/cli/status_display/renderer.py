"""Render the status: as tables with headings, or as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from canhazgpu.people.revocations import Revocation
    from canhazgpu.service.status import StatusAnswer
    from canhazgpu.status.node_status import NodeStatus


@dataclass(frozen=True, slots=True)
class StatusRenderer:
    """Renders answers; with `mine` only what the caller holds, uses or waits for."""

    as_json: bool = False
    watching: bool = False
    wide: bool = False
    coloured: bool = False
    mine: bool = False

    def lines(self, answer: StatusAnswer, width: int | None) -> list[str]:
        """Return the lines of the answer, at least one.

        `width` is that of the terminal in columns, None if there is none.
        """
        shown = self.visible_nodes(answer)
        if self.as_json:
            return [self._json_text(answer, shown)]
        notes = list(_revocation_lines(answer.nodes, answer.revocations))
        if answer.caller is not None and not shown:
            known = "" if answer.store_fault is None else ", as far as this node knows"
            return [f"{answer.caller.user} holds, uses and awaits no GPU{known}", *notes]
        return [*self._node_blocks(shown, width, headed=self._shows_headings(answer.nodes)), *notes]

    def visible_nodes(self, answer: StatusAnswer) -> Sequence[NodeStatus]:
        """Return the nodes to show, each with the GPUs to show."""
        if answer.caller is None:
            return answer.nodes
        from canhazgpu.status.user_filter import only_of_user  # noqa: PLC0415 - only with --me

        return only_of_user(answer.caller, answer.nodes)

    def _shows_headings(self, statuses: Sequence[NodeStatus]) -> bool:
        # The heading tells the age of a scan; only a scan made now needs none.
        first = statuses[0]
        if len(statuses) > 1 or not first.live or first.lacks_gpus or first.hooks_outage:
            return True
        if not first.reservations_known:
            return True
        # Without --watch the command ends with this error, so a heading is not needed.
        return self.watching and statuses[0].fault is not None

    def _json_text(self, answer: StatusAnswer, statuses: Sequence[NodeStatus]) -> str:
        from canhazgpu.cli.status_display.missing import missing_text  # noqa: PLC0415 - --json
        from canhazgpu.status.json_format import iso_time, status_to_dict  # noqa: PLC0415 - --json

        document = status_to_dict(answer.nodes[0].read_at, statuses, missing_text(answer) or None)
        if self.mine:
            document["taken"] = [
                {**asdict(one), "at": iso_time(one.at)} for one in answer.revocations
            ]
        if self.watching:
            return json.dumps(document, separators=(",", ":"))
        return json.dumps(document, indent=2)

    def _node_blocks(
        self, statuses: Sequence[NodeStatus], width: int | None, *, headed: bool
    ) -> Iterator[str]:
        from canhazgpu.cli.terminal.text import printable  # noqa: PLC0415 - not with --json
        from canhazgpu.status.table_cells import heading_text, queue_text  # noqa: PLC0415

        for place, one in enumerate(statuses):
            if place:
                yield ""
            if headed:
                yield printable(heading_text(one))
            yield from self._table(one, width)
            if queue := queue_text(one, wide=self.wide):
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
