"""What commands and hooks need from a node: one port, whatever stands behind it.

Requests and answers are values, one module for each kind of question. They say what people and
schedulers mean, never which operations of the ledger that takes. Today the service works in the
caller's own process (`canhazgpu.in_process`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from canhazgpu.allocation.progress import Progress
    from canhazgpu.allocation.refusal import Refusal
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
    from canhazgpu.service.jobs import CheckAnswer, CheckRequest, HookAnswer, JobEnd, JobStart
    from canhazgpu.service.nodes import NodeSummary
    from canhazgpu.service.queue import NodeQueue, QueueRequest
    from canhazgpu.service.status import StatusAnswer, StatusRequest
    from canhazgpu.status.event_format import NodeEvent


class NodeService(Protocol):
    """One node's service.

    Who asks is known to the service; no request says it. Every method raises a `CanhazgpuError`:
    `ConfigError`, `InputError` for what was asked wrongly or may not be, `StoreError`, and
    `ScanError` where the GPUs cannot be read.
    """

    def status(self, request: StatusRequest) -> StatusAnswer:
        """Return what each GPU is: scanned now on this node, as last published on others."""
        ...

    def reserve(
        self, request: ReserveRequest, progress: Progress
    ) -> Reserved | Refusal | ThroughScheduler:
        """Reserve GPUs for the caller for a time; waits in the queue as long as asked."""
        ...

    def start_run(
        self, request: RunRequest, progress: Progress
    ) -> RunStarted | RunInsideJob | Refusal | ThroughScheduler:
        """Reserve GPUs for as long as the caller's process lives, and what it becomes or leaves."""
        ...

    def cancel_run(self, owner: str) -> None:
        """Release what `start_run` granted: the command did not start."""
        ...

    def extend(self, request: ExtendRequest) -> ExtendAnswer:
        """Let the caller's reservations for a time last longer."""
        ...

    def release(self, request: ReleaseRequest) -> ReleaseAnswer:
        """Release the caller's own reservations."""
        ...

    def revoke(self, request: RevokeRequest) -> ReleaseAnswer:
        """Release anybody's reservations; for administrators."""
        ...

    def queue(self, request: QueueRequest) -> tuple[NodeQueue, ...]:
        """Return who waits for GPUs, node by node."""
        ...

    def events(self, request: EventsRequest) -> EventsAnswer:
        """Return what happened on the nodes."""
        ...

    def follow(self, shown: EventsAnswer) -> Iterator[NodeEvent]:
        """Return what happens after these events, as it happens, until an error ends it."""
        ...

    def explain(self, request: ExplainRequest) -> ExplainAnswer:
        """Return what happened to one job's GPUs, and why."""
        ...

    def report(self, request: ReportRequest) -> ReportAnswer:
        """Return who had GPUs reserved, for how long, and how much of that they were idle."""
        ...

    def validate(self, request: ValidateRequest) -> ValidateAnswer:
        """Check this node's GPUs once; publishes the scan where asked to."""
        ...

    def quarantine(self, request: QuarantineRequest) -> QuarantineAnswer:
        """Hold GPUs back from grants; for administrators."""
        ...

    def unquarantine(self, request: UnquarantineRequest) -> QuarantineAnswer:
        """Let GPUs be granted again; for administrators."""
        ...

    def nodes(self) -> tuple[NodeSummary, ...]:
        """Return every node that the ledger knows, as it last published itself."""
        ...

    def forget_node(self, node: str) -> None:
        """Remove a node that is no more, but for its history; for administrators."""
        ...

    def complete(self, request: CompletionRequest) -> tuple[Completion, ...]:
        """Return what the shell may complete with; never scans."""
        ...

    def job_start(self, request: JobStart) -> HookAnswer:
        """Reserve a job's GPUs before it starts, or do with the job what the policies say."""
        ...

    def job_end(self, request: JobEnd) -> HookAnswer:
        """Clear a job's GPUs of what it left on them, and release them."""
        ...

    def check(self, request: CheckRequest) -> CheckAnswer:
        """Look after the node's reservations: release what is over, put back what was lost."""
        ...
