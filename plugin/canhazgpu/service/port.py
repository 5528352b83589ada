"""The port through which commands and hooks use a node.

Requests and answers are values, in one module for each kind of request. They say what people and
schedulers mean, and name no operation of the ledger. `canhazgpu.in_process` implements the port in
the caller's own process.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from canhazgpu.allocation.progress import NO_PROGRESS, Progress

if TYPE_CHECKING:
    from canhazgpu.allocation.refusal import Refusal
    from canhazgpu.conflict.checked_job import CheckedJob
    from canhazgpu.service.completion import Completion, CompletionRequest
    from canhazgpu.service.grants import (
        Reserved,
        ReserveRequest,
        RunInsideJob,
        RunRequest,
        RunStarted,
        ThroughScheduler,
    )
    from canhazgpu.service.health import (
        QuarantineAnswer,
        QuarantineRequest,
        UnquarantineRequest,
        ValidateAnswer,
        ValidateRequest,
    )
    from canhazgpu.service.history import (
        EventsAnswer,
        EventsRequest,
        ExplainAnswer,
        ExplainRequest,
        ReportAnswer,
        ReportRequest,
    )
    from canhazgpu.service.holdings import (
        ExtendAnswer,
        ExtendRequest,
        ReleaseAnswer,
        ReleaseRequest,
        RevokeRequest,
    )
    from canhazgpu.service.index import IndexAnswer, IndexRequest
    from canhazgpu.service.jobs import (
        CheckAnswer,
        CheckRequest,
        HookAnswer,
        JobCheck,
        JobEnd,
        JobStart,
    )
    from canhazgpu.service.nodes import CountersAnswer, NodeSummary
    from canhazgpu.service.queue import NodeQueue, QueueRequest
    from canhazgpu.service.status import StatusAnswer, StatusRequest
    from canhazgpu.service.store_users import (
        StoreCheckAnswer,
        StoreUsersAnswer,
        StoreUsersRequest,
    )
    from canhazgpu.status.event_format import NodeEvent


class NodeService(Protocol):
    """One node's service.

    The service itself finds out who the caller is; no request states it. Every method may raise a
    `CanhazgpuError`: `ConfigError`; `InputError` for a request that is wrong or not permitted;
    `StoreError` if Redis does not answer; `ScanError` if the GPUs cannot be read. What would
    change another node is given that node as an order; `progress` then shows the wait.
    """

    def status(self, request: StatusRequest) -> StatusAnswer:
        """Return the state of each GPU; scans this node now, reads the last scan of other nodes."""
        ...

    def status_pages(self, request: StatusRequest) -> Iterator[StatusAnswer]:
        """Yield the status of some nodes at a time, sorted by name: few are in memory at once.

        Errors are those of `status`, and may come after the first answers. No answer names the
        caller. Without the store the only answer is that of `status`.
        """
        ...

    def reserve(
        self, request: ReserveRequest, progress: Progress
    ) -> Reserved | Refusal | ThroughScheduler:
        """Reserve GPUs for the caller for a time; waits in the queue up to the request's limit."""
        ...

    def start_run(
        self, request: RunRequest, progress: Progress
    ) -> RunStarted | RunInsideJob | Refusal | ThroughScheduler:
        """Reserve GPUs for the caller's process, until it and its descendants have ended."""
        ...

    def cancel_run(self, owner: str) -> None:
        """Release what `start_run` granted to this owner: its command could not be executed."""
        ...

    def extend(self, request: ExtendRequest, progress: Progress = NO_PROGRESS) -> ExtendAnswer:
        """Extend the caller's reservations that were made by hand."""
        ...

    def release(self, request: ReleaseRequest, progress: Progress = NO_PROGRESS) -> ReleaseAnswer:
        """Release the caller's own reservations."""
        ...

    def revoke(self, request: RevokeRequest, progress: Progress = NO_PROGRESS) -> ReleaseAnswer:
        """Release anybody's reservations; for administrators."""
        ...

    def revoke_job(
        self, request: RevokeRequest, progress: Progress = NO_PROGRESS
    ) -> tuple[ReleaseAnswer, ...]:
        """Release what a job holds on all its nodes, whatever node is named; for administrators.

        There is an answer for each node where it holds GPUs. What failed there is its `fault`.
        """
        ...

    def queue(self, request: QueueRequest) -> tuple[NodeQueue, ...]:
        """Return the waiters of each node's queue."""
        ...

    def events(self, request: EventsRequest) -> EventsAnswer:
        """Return what happened on the nodes."""
        ...

    def follow(self, shown: EventsAnswer) -> Iterator[NodeEvent]:
        """Yield each event after those of `shown` as it happens; ends only by an error."""
        ...

    def explain(self, request: ExplainRequest) -> ExplainAnswer:
        """Return what happened to one owner's GPUs, why, and what comes next."""
        ...

    def report(self, request: ReportRequest) -> ReportAnswer:
        """Return who had GPUs reserved, for how long, and how long these GPUs were idle."""
        ...

    def validate(self, request: ValidateRequest) -> ValidateAnswer:
        """Check this node's GPUs once; publishes the scan if the request says so."""
        ...

    def quarantine(
        self, request: QuarantineRequest, progress: Progress = NO_PROGRESS
    ) -> QuarantineAnswer:
        """Quarantine GPUs; for administrators."""
        ...

    def unquarantine(
        self, request: UnquarantineRequest, progress: Progress = NO_PROGRESS
    ) -> QuarantineAnswer:
        """Lift quarantines; for administrators."""
        ...

    def nodes(self) -> tuple[NodeSummary, ...]:
        """Return every node that the ledger knows, by its last published scan."""
        ...

    def counters(self) -> Iterator[CountersAnswer]:
        """Yield what the nodes have counted that publish it, some nodes at a time."""
        ...

    def forget_node(self, node: str, *, releases: bool = False) -> None:
        """Remove a node and its history from the ledger; for administrators.

        Raises `InputError` while a GPU of it is reserved, unless it `releases` them: that is for a
        node that is gone, and raises `InputError` for one that was seen lately.
        """
        ...

    def complete(self, request: CompletionRequest) -> tuple[Completion, ...]:
        """Return the values that the shell may complete; never scans."""
        ...

    def store_users(self, request: StoreUsersRequest) -> StoreUsersAnswer:
        """Return the users that the store is to have, with new passwords; changes no server."""
        ...

    def check_store_users(self, nodes: Sequence[str]) -> StoreCheckAnswer:
        """Return which of these users the store lacks, and which have other rights."""
        ...

    def indexes(self, request: IndexRequest, progress: Progress = NO_PROGRESS) -> IndexAnswer:
        """Compare the store's indexes with the nodes' records, or mend them; for administrators."""
        ...

    def job_start(self, request: JobStart) -> HookAnswer:
        """Reserve a job's GPUs before it starts; on a conflict apply the configured policies."""
        ...

    def job_end(self, request: JobEnd) -> HookAnswer:
        """End the processes that a job left on its GPUs, and release the GPUs."""
        ...

    def check_job(self, request: JobCheck) -> CheckedJob:
        """Check the job of a process that runs in it, as its start would have; never raises."""
        ...

    def check(self, request: CheckRequest) -> CheckAnswer:
        """Check the node: release reservations that are over, restore those that were lost."""
        ...
