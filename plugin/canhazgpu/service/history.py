"""The history: what happened on the nodes, what happened to one job, and who used how much."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from canhazgpu.frozen_dataclass import dataclass

if TYPE_CHECKING:
    from canhazgpu.errors import CanhazgpuError
    from canhazgpu.gpu.assigned import AssignedGpu
    from canhazgpu.ledger.journal_entries import JournalEntry
    from canhazgpu.report.totals import Report
    from canhazgpu.status.event_format import NodeEvent
    from canhazgpu.status.history.next_steps import Holding
    from canhazgpu.status.scheduler_jobs import JobNow


@dataclass(frozen=True, slots=True)
class EventsRequest:
    """The events of the last `since_s` seconds on these nodes; on all nodes if none is named."""

    since_s: float
    nodes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EventsAnswer:
    """The events so far, sorted by time, and the nodes that were read.

    `now` is the time of Redis before the events were read, in seconds since the epoch.
    """

    now: float
    nodes: Sequence[str]
    events: Sequence[NodeEvent]


@dataclass(frozen=True, slots=True)
class ExplainRequest:
    """One job, by the id that its scheduler shows: ``4711``, ``4711_3`` or ``4711+1``.

    Or the owner of a run or of a manual reservation, ``run:…`` or ``manual:…``. The history is read
    for the last `since_s` seconds, on these nodes; on all if none is named. `cluster` is the job's,
    as Slurm calls it; empty for that of this host's ``slurm.conf``.
    """

    subject: str
    since_s: float
    nodes: tuple[str, ...] = ()
    cluster: str = ""


@dataclass(frozen=True, slots=True)
class RecordedJob:
    """A node's own record of the latest attempt of a job.

    `owner` is its owner's token. `ended` is True if the attempt is over and its release is not in
    Redis yet. `epilogs_owed` counts earlier attempts whose epilogs have not run yet.
    """

    owner: str
    user: str
    gpus: tuple[AssignedGpu, ...]
    ended: bool
    epilogs_owed: int


@dataclass(frozen=True, slots=True)
class JobOnNode:
    """What this node itself knows of a job; `record` is None if it has no record of it.

    `pending` are the journal entries that Redis does not have yet. It is None if they cannot be
    read: only root may. `pending_fault` then says so.
    """

    node: str
    record: RecordedJob | None
    pending: tuple[JournalEntry, ...] | None
    pending_fault: str | None = None


@dataclass(frozen=True, slots=True)
class ExplainAnswer:
    """What is known of a job, a run or a manual reservation.

    `job_id` is the id that the job's hooks saw, empty for an `owner` that is no job. `fault` is the
    error that kept the history from being read, None if it was read. `holdings` are the GPUs that
    the owner has now. `scheduler` is the job as its scheduler knows it now, None if it does not
    know it (any more), or if `scheduler_fault` says why it cannot tell. `read_at` is the present,
    in seconds since the epoch. `history_days` is for how many days the history is kept.
    `other_clusters` have a job of this number too.
    """

    job_id: str
    on_this_node: JobOnNode
    owner: str = ""
    events: tuple[NodeEvent, ...] = ()
    holdings: tuple[Holding, ...] = ()
    scheduler: JobNow | None = None
    scheduler_fault: str = ""
    fault: CanhazgpuError | None = None
    read_at: float = 0.0
    history_days: int = 0
    other_clusters: tuple[str, ...] = ()

    @property
    def is_known(self) -> bool:
        """Whether the history or this node knows anything of it."""
        here = self.on_this_node
        return bool(self.events or self.holdings or here.record or here.pending)


@dataclass(frozen=True, slots=True)
class ReportRequest:
    """The last `days` days of these users on these nodes; of all if none is named.

    With `wasted` those who wasted most come first in it.
    """

    days: int
    users: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    wasted: bool = False


@dataclass(frozen=True, slots=True)
class ReportAnswer:
    """The report; `history_days` is for how many days the history is kept."""

    report: Report
    history_days: int
