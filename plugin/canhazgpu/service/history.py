"""The history: what happened on the nodes, to one job, and who used how much."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from canhazgpu.errors import CanhazgpuError
    from canhazgpu.ledger.journal_entries import JournalEntry
    from canhazgpu.ledger.local.job_records import JobRecord
    from canhazgpu.report.totals import Report
    from canhazgpu.status.event_format import NodeEvent


@dataclass(frozen=True, slots=True)
class EventsRequest:
    """The events of the last `since_s` seconds on these nodes, on all where none is named."""

    since_s: float
    nodes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EventsAnswer:
    """The events so far, by their times; `now` is the store's time before they were read."""

    now: float
    nodes: Sequence[str]
    events: Sequence[NodeEvent]


@dataclass(frozen=True, slots=True)
class ExplainRequest:
    """A job by the number or name that its scheduler gives it: ``4711``, ``4711_3``, ``4711+1``."""

    job: str
    since_s: float
    nodes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class JobOnNode:
    """What this node itself knows of a job.

    `pending` is what the store has not heard yet; None where only root may read that, as
    `pending_fault` says.
    """

    node: str
    record: JobRecord | None
    pending: tuple[JournalEntry, ...] | None
    pending_fault: str | None = None


@dataclass(frozen=True, slots=True)
class ExplainAnswer:
    """What is known of a job; `fault` kept the history from being read."""

    job_id: str
    events: tuple[NodeEvent, ...]
    here: JobOnNode
    fault: CanhazgpuError | None = None


@dataclass(frozen=True, slots=True)
class ReportRequest:
    """The last `days` days of these users on these nodes; of all where none is named."""

    days: int
    users: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ReportAnswer:
    """The report, and for how many days the history is kept."""

    report: Report
    history_days: int
