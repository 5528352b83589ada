"""`NodeService` in the caller's own process, with the caller's own rights.

Each method imports its module when it is called, so that a hook does not import what only
commands use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from canhazgpu.allocation.progress import NO_PROGRESS, Progress

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from canhazgpu.allocation.refusal import Refusal
    from canhazgpu.conflict.checked_job import CheckedJob
    from canhazgpu.in_process.adapters import Adapters, RightsOfGiver
    from canhazgpu.in_process.status.reader import StatusReader
    from canhazgpu.schedulers.slurm.hook.startup import ScanSources
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
    from canhazgpu.service.port import NodeService
    from canhazgpu.service.queue import NodeQueue, QueueRequest
    from canhazgpu.service.status import StatusAnswer, StatusRequest
    from canhazgpu.service.store_users import (
        StoreCheckAnswer,
        StoreUsersAnswer,
        StoreUsersRequest,
    )
    from canhazgpu.status.event_format import NodeEvent


def open_service(
    environ: Mapping[str, str],
    config_file: str | None = None,
    overrides: Mapping[str, str] | None = None,
) -> NodeService:
    """Return the service of this node for a command; reads and opens nothing yet."""
    from canhazgpu.in_process.adapters import Adapters

    return InProcessService(Adapters(environ, config_file, overrides or {}))


def open_hook_service(
    scan_sources: ScanSources | None = None, rights_of_giver: RightsOfGiver | None = None
) -> NodeService:
    """Return the service of this node for a hook; each request carries the hook's environment.

    `scan_sources` tells what scans, None for children of this process. `rights_of_giver` is as in
    `Adapters`.
    """
    return InProcessService(None, scan_sources, rights_of_giver)


class InProcessService:
    """See `NodeService`."""

    # ruff: noqa: D102, PLC0415 - documented in the port; imported when needed

    def __init__(
        self,
        adapters: Adapters | None,
        scan_sources: ScanSources | None = None,
        rights_of_giver: RightsOfGiver | None = None,
    ) -> None:
        """Take the adapters; None for a hook's service, for jobs and the node check alone."""
        self._rights_of_giver = rights_of_giver
        self._optional_adapters = adapters
        self._optional_scan_sources = scan_sources
        self._status: tuple[StatusRequest, StatusReader] | None = None

    @property
    def _adapters(self) -> Adapters:
        if self._optional_adapters is None:
            raise AssertionError("a hook's service handles jobs alone")
        return self._optional_adapters

    @property
    def _scan_sources(self) -> ScanSources:
        from canhazgpu.schedulers.slurm.hook.startup import scan_in_child

        return self._optional_scan_sources or scan_in_child

    def status(self, request: StatusRequest) -> StatusAnswer:
        from canhazgpu.in_process.status.reader import StatusReader

        # Equal requests, as of status --watch, share one connection and one configuration.
        if self._status is None or self._status[0] != request:
            self._status = (request, StatusReader(self._adapters, request))
        return self._status[1].read()

    def status_pages(self, request: StatusRequest) -> Iterator[StatusAnswer]:
        from canhazgpu.in_process.status.reader import StatusReader

        return StatusReader(self._adapters, request).pages()

    def reserve(
        self, request: ReserveRequest, progress: Progress
    ) -> Reserved | Refusal | ThroughScheduler:
        from canhazgpu.in_process.grants.reserve import reserve

        return reserve(self._adapters, request, progress)

    def start_run(
        self, request: RunRequest, progress: Progress
    ) -> RunStarted | RunInsideJob | Refusal | ThroughScheduler:
        from canhazgpu.in_process.grants.run import start_run

        return start_run(self._adapters, request, progress)

    def cancel_run(self, owner: str) -> None:
        from canhazgpu.in_process.grants.run import cancel_run

        cancel_run(self._adapters, owner)

    def extend(self, request: ExtendRequest, progress: Progress = NO_PROGRESS) -> ExtendAnswer:
        from canhazgpu.in_process.extend import extend
        from canhazgpu.in_process.orders.routing import here_or_ordered
        from canhazgpu.service.holdings import ExtendAnswer

        return here_or_ordered(self._adapters, request, progress, ExtendAnswer, extend)

    def release(self, request: ReleaseRequest, progress: Progress = NO_PROGRESS) -> ReleaseAnswer:
        from canhazgpu.in_process.orders.routing import here_or_ordered
        from canhazgpu.in_process.release import release
        from canhazgpu.service.holdings import ReleaseAnswer

        return here_or_ordered(self._adapters, request, progress, ReleaseAnswer, release)

    def revoke(self, request: RevokeRequest, progress: Progress = NO_PROGRESS) -> ReleaseAnswer:
        from canhazgpu.in_process.orders.routing import here_or_ordered
        from canhazgpu.in_process.release import revoke
        from canhazgpu.service.holdings import ReleaseAnswer

        return here_or_ordered(self._adapters, request, progress, ReleaseAnswer, revoke)

    def revoke_job(
        self, request: RevokeRequest, progress: Progress = NO_PROGRESS
    ) -> tuple[ReleaseAnswer, ...]:
        from canhazgpu.in_process.orders.job_release import revoke_job

        return revoke_job(self._adapters, request, progress)

    def queue(self, request: QueueRequest) -> tuple[NodeQueue, ...]:
        from canhazgpu.in_process.queue import read_queues

        return read_queues(self._adapters, request)

    def events(self, request: EventsRequest) -> EventsAnswer:
        from canhazgpu.in_process.events import read_events

        return read_events(self._adapters, request)

    def follow(self, shown: EventsAnswer) -> Iterator[NodeEvent]:
        from canhazgpu.in_process.events import follow_events

        return follow_events(self._adapters, shown)

    def explain(self, request: ExplainRequest) -> ExplainAnswer:
        from canhazgpu.in_process.explain import explain_owner

        return explain_owner(self._adapters, request)

    def report(self, request: ReportRequest) -> ReportAnswer:
        from canhazgpu.in_process.report import read_report

        return read_report(self._adapters, request)

    def validate(self, request: ValidateRequest) -> ValidateAnswer:
        from canhazgpu.in_process.validate import validate_node

        return validate_node(self._adapters, request)

    def quarantine(
        self, request: QuarantineRequest, progress: Progress = NO_PROGRESS
    ) -> QuarantineAnswer:
        from canhazgpu.in_process.orders.routing import here_or_ordered
        from canhazgpu.in_process.quarantine import quarantine
        from canhazgpu.service.health import QuarantineAnswer

        return here_or_ordered(self._adapters, request, progress, QuarantineAnswer, quarantine)

    def unquarantine(
        self, request: UnquarantineRequest, progress: Progress = NO_PROGRESS
    ) -> QuarantineAnswer:
        from canhazgpu.in_process.orders.routing import here_or_ordered
        from canhazgpu.in_process.quarantine import unquarantine
        from canhazgpu.service.health import QuarantineAnswer

        return here_or_ordered(self._adapters, request, progress, QuarantineAnswer, unquarantine)

    def nodes(self) -> tuple[NodeSummary, ...]:
        from canhazgpu.in_process.nodes import node_summaries

        return node_summaries(self._adapters)

    def counters(self) -> Iterator[CountersAnswer]:
        from canhazgpu.in_process.nodes import read_counters

        yield from read_counters(self._adapters)

    def forget_node(self, node: str, *, releases: bool = False) -> None:
        from canhazgpu.in_process.nodes import forget_node

        forget_node(self._adapters, node, releases=releases)

    def complete(self, request: CompletionRequest) -> tuple[Completion, ...]:
        from canhazgpu.in_process.completion import completions

        return completions(self._adapters, request)

    def store_users(self, request: StoreUsersRequest) -> StoreUsersAnswer:
        from canhazgpu.in_process.store.users import users_to_add

        return users_to_add(self._adapters, request)

    def check_store_users(self, nodes: Sequence[str]) -> StoreCheckAnswer:
        from canhazgpu.in_process.store.users import check_users

        return check_users(self._adapters, nodes)

    def indexes(self, request: IndexRequest, progress: Progress = NO_PROGRESS) -> IndexAnswer:
        from canhazgpu.in_process.store.indexes import look_after_indexes

        return look_after_indexes(self._adapters, request, progress)

    def job_start(self, request: JobStart) -> HookAnswer:
        from canhazgpu.schedulers.slurm.hook.startup import start_hook
        from canhazgpu.service.jobs import HookAnswer

        # The scan runs in a child process while this process imports the rest.
        started = start_hook(request.environment, self._scan_sources)
        from canhazgpu.schedulers.slurm.job_start.reserve import handle_job_start

        outcome = handle_job_start(request.environment, started, request.caller)
        return HookAnswer(outcome.exit_status, outcome.is_routine)

    def job_end(self, request: JobEnd) -> HookAnswer:
        from canhazgpu.schedulers.slurm.environment import JOB_GPUS
        from canhazgpu.service.jobs import HookAnswer

        if not request.environment.get(JOB_GPUS):
            from canhazgpu.schedulers.slurm.job_end.no_gpus import has_nothing_to_end

            if has_nothing_to_end(request.environment):
                return HookAnswer(0)
        from canhazgpu.schedulers.slurm.job_end.release import handle_job_end

        outcome = handle_job_end(request.environment, request.caller, self._scan_sources)
        return HookAnswer(outcome.exit_status, outcome.is_routine)

    def check_job(self, request: JobCheck) -> CheckedJob:
        from canhazgpu.schedulers.slurm.job_check.check import handle_job_check

        return handle_job_check(
            request.environment, request.process, request.caller, self._scan_sources
        )

    def check(self, request: CheckRequest) -> CheckAnswer:
        from canhazgpu.schedulers.slurm.node_check.health_check import run_node_check
        from canhazgpu.service.jobs import CheckAnswer

        outcome = run_node_check(request.environment, request.caller, self._scan_sources)
        from canhazgpu.in_process.orders.at_health_check import carry_out_at_check

        in_agent = self._optional_scan_sources is not None
        carry_out_at_check(request, in_agent=in_agent, rights_of_giver=self._rights_of_giver)
        if not in_agent:
            from canhazgpu.in_process.node_metrics import write_at_check

            write_at_check(request)
        return CheckAnswer(*outcome)
