"""The table of a node by its head, without a value for each of its GPUs; pure.

`table_cells` has the cells of any GPU. What it would say is said here of a node that is plain, as
`counts` and `held_gpus` say. Of any other node nothing is said. A test compares the two for any
content.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from canhazgpu.durations import duration_text, short_duration_text
from canhazgpu.gpu.usage import GpuState, UsagePolicy, memory_text
from canhazgpu.ledger.record_json import queue_from_hash
from canhazgpu.ledger.values import NodeHead
from canhazgpu.status.details_cell import claim_text, note_text
from canhazgpu.status.heads.chosen_gpus import ChosenGpus
from canhazgpu.status.heads.counts import NOT_PLAIN_ERRORS, NotPlainError, plain_node
from canhazgpu.status.heads.held_gpus import Holder, held_memory_mb, held_use_text, holder_of
from canhazgpu.status.node_status import SCANNED_BEFORE_GRANT
from canhazgpu.status.status_filter import StatusFilter
from canhazgpu.status.table_cells import (
    NOT_AVAILABLE,
    STATUS_WORDS,
    Cells,
    models_text,
    waiters_text,
)


class NodeTable(NamedTuple):
    """A node as the texts of its table: the heading, the rows, and the queue ("" without one).

    `utilization` has the UTIL cell of each row where the table is wide; else it is empty.
    """

    node: str
    read_at: float
    partitions: tuple[str, ...] | None
    heading: str
    rows: Sequence[Cells]
    utilization: Sequence[str]
    queue: str

    @property
    def shows_nothing(self) -> bool:
        """Whether no GPU is to be shown."""
        return not self.rows


class _HolderCells(NamedTuple):
    user: str
    duration: str
    type: str
    details: str
    is_newer: bool
    """Whether the reservation is newer than the scan."""


class PlainNodesTable:
    """Writes the rows of plain nodes; what many of them have in common is written once.

    Only GPUs that the filter chooses have a row.
    """

    def __init__(
        self, policy: UsagePolicy, chosen: StatusFilter | None = None, *, wide: bool = False
    ) -> None:
        self._policy = policy
        self._wide = wide
        self._chosen = ChosenGpus(chosen)
        self._models: dict[tuple[str, ...], str] = {}

    def table(self, head: NodeHead) -> NodeTable | None:
        """Return the table; None for a node that is not plain."""
        try:
            return self._table(head, head.content or {})
        except NOT_PLAIN_ERRORS:
            return None

    def _table(self, node: NodeHead, head: Mapping[str, Any]) -> NodeTable:
        read_at = node.read_at
        queue = queue_from_hash(node.queue or {}, read_at) if head["waiting"] else ()
        plain = plain_node(node, head, self._policy, queue)
        holders = [
            self._holder_cells(holder_of(one), read_at, plain.scanned_at) for one in head["records"]
        ]
        rows, utilization = self._rows(head, holders, read_at)
        places = {gpu[0]: str(gpu[1]) for gpu in head["brief"]["gpus"]} if queue else {}
        return NodeTable(
            node.node,
            read_at,
            plain.partitions,
            f"{node.node} (scanned {short_duration_text(read_at - plain.scanned_at)} ago)",
            rows,
            utilization,
            waiters_text(queue, places, read_at, wide=self._wide) if queue else "",
        )

    def _rows(
        self, head: Mapping[str, Any], holders: Sequence[_HolderCells], read_at: float
    ) -> tuple[list[Cells], list[str]]:
        brief, held, released = head["brief"], head["held"], head["released"]
        names, chosen = brief["names"], self._chosen
        rows: list[Cells] = []
        utilization: list[str] = []
        available, reserved = STATUS_WORDS[GpuState.AVAILABLE], STATUS_WORDS[GpuState.RESERVED]
        # A loop over every GPU of the cluster.
        for gpu, percent in zip(brief["gpus"], brief["utilization"], strict=True):
            uuid, index, name, used, _, processes = gpu
            if percent is not None and type(percent) is not int:
                raise NotPlainError
            place = held.get(uuid)
            is_newer = False
            if place is None:
                if not chosen.has_free(names[name]):
                    continue
                details = _free_text(released.get(uuid), read_at)
                validation = f"{memory_text(used)} used"
                rows.append(Cells(str(index), available, "", "", "", "", details, validation))
            else:
                memory_mb = held_memory_mb(processes, used, self._policy)
                user, duration, type_, details, is_newer = holders[place]
                if not chosen.has_held(names[name], () if is_newer else processes):
                    continue
                model, validation = "", f"cannot tell: {SCANNED_BEFORE_GRANT}"
                if not is_newer:
                    model = self._model(processes)
                    validation = held_use_text(memory_mb, len(processes), self._policy)
                rows.append(
                    Cells(str(index), reserved, user, duration, type_, model, details, validation)
                )
            if self._wide:
                is_known = percent is not None and not is_newer
                utilization.append(f"{percent}%" if is_known else NOT_AVAILABLE)
        return rows, utilization

    def _holder_cells(self, one: Holder, read_at: float, scanned_at: float) -> _HolderCells:
        wide = self._wide
        parts = (
            claim_text(one.job_id, one.job_name, one.ends_at, read_at, wide=wide),
            note_text(one.note, wide=wide),
        )
        return _HolderCells(
            one.user,
            duration_text(read_at - one.granted_at) if one.granted_at else "",
            one.type,
            "; ".join(filter(None, parts)),
            one.granted_at > scanned_at,
        )

    def _model(self, processes: Sequence[Any]) -> str:
        if not processes:
            return ""
        models = tuple(dict.fromkeys([one[5] for one in processes if one[5]]))
        known = self._models.get(models)
        if known is None:
            known = self._models[models] = models_text(models, wide=self._wide)
        return known


def _free_text(released_ms: str | None, read_at: float) -> str:
    if released_ms is None:
        return ""
    return f"free for {short_duration_text(read_at - float(released_ms) / 1000)}"
