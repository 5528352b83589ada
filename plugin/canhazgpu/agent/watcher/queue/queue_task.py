"""What the watcher does for those who wait, in a `ForkedTask`: one check of the queue for all."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from canhazgpu.agent.watcher.queue.node_queue_positions import NodeQueuePositions
from canhazgpu.agent.watcher.queue.waiter_answers import WaiterAnswers
from canhazgpu.allocation.allocator import Grant
from canhazgpu.allocation.feasibility import Feasibility
from canhazgpu.allocation.queue_check import QueueCheck, QueuedWait, StillWaiting
from canhazgpu.allocation.queue_decision import WaitState
from canhazgpu.allocation.refusal import Refusal, RefusalKind
from canhazgpu.config.schema import Config, ValidationConfig
from canhazgpu.errors import CanhazgpuError, DeadlineError, StoreError, UnavailableError
from canhazgpu.in_process.grants.acquisition import (
    Acquisition,
    ReserveAttempts,
    heartbeat_interval_s,
    open_allocator,
)
from canhazgpu.in_process.grants.refused_requests import note_refused
from canhazgpu.in_process.grants.scan_feasibility import scan_feasibility
from canhazgpu.in_process.watching.waiting_request import WaitingRequest
from canhazgpu.in_process.watching.watched_grants import RunRecording
from canhazgpu.ledger.local.fallback_ledger import FallbackLedger
from canhazgpu.ledger.local.runs.run_files import RunFiles
from canhazgpu.ledger.release_reasons import GAVE_UP
from canhazgpu.ledger.values import NodeView, Waiter
from canhazgpu.node.identity import boot_id, pid_namespace, state_dir
from canhazgpu.node.process_id import ProcessId
from canhazgpu.node.processes import is_alive, is_stopped
from canhazgpu.probe.port import GpuProbe


class QueuePorts(Protocol):
    """What is opened of the node, each time anew. Raises `CanhazgpuError`."""

    def config(self) -> Config:
        """Read the configuration."""

    def ledger(self, peer_lives: Callable[[], bool]) -> FallbackLedger:
        """Open the ledger, which grants while `peer_lives` only."""

    def probe(self, config: Config) -> GpuProbe:
        """Return what scans the GPUs."""


@dataclass(slots=True)
class Wait:
    """One who waits, as the watcher keeps it between two checks."""

    waiting: WaitingRequest
    answers: WaiterAnswers
    state: WaitState
    refusal: Refusal


@dataclass(frozen=True, slots=True)
class Answered:
    """The wait is over; `answer` is for the client. With `is_grant` it has its GPUs."""

    answer: bytes
    is_grant: bool = False


@dataclass(frozen=True, slots=True)
class Checked:
    """What one check came to for one waiter, with the state for the next one."""

    outcome: Answered | StillWaiting
    state: WaitState

    @property
    def is_calm(self) -> bool:
        """Whether it waits for something to be released."""
        return isinstance(self.outcome, StillWaiting) and not self.outcome.may_change_soon


def check_queue(
    node: str, files: RunFiles, waits: Sequence[Wait], ports: QueuePorts
) -> dict[str, Checked]:
    """Check the queue once for all of them; return the outcome by owner. Raises `StoreError`."""
    check = _Check(node, files, ports)
    queued = {one.waiting.owner: check.queued(one) for one in waits if check.is_running(one)}
    outcomes = check.run(list(queued.values()))
    found = {}
    for one in waits:
        owner = one.waiting.owner
        if owner in outcomes:
            answer = check.answer(one, outcomes[owner])
            found[owner] = Checked(answer, queued[owner].state)
    return found


def leave_queue(
    node: str, files: RunFiles, owners: Sequence[str], holders: Sequence[str], ports: QueuePorts
) -> bool:
    """Remove these owners from the queue, and release what `holders` may have."""
    ledger = ports.ledger(lambda: False)
    ledger.leave_queue(node, owners, GAVE_UP)
    for owner in holders:
        ledger.release(node, owner, GAVE_UP)
        with contextlib.suppress(OSError):
            files.remove(owner)
    return True


class _Check:
    """The ports of one check, which all its waiters share."""

    def __init__(self, node: str, files: RunFiles, ports: QueuePorts) -> None:
        self.node = node
        self.files = files
        self.ports = ports
        self.config = ports.config()
        self.trying: ProcessId | None = None
        self.ledger = ports.ledger(self._peer_lives)
        self._requests: dict[str, _Request] = {}
        self._ends: dict[str, float | None] = {}
        self._judged: NodeView | None = None
        self._feasibility: dict[tuple[object, ...], Feasibility | None] = {}

    def is_running(self, one: Wait) -> bool:
        """Tell whether the client runs: one that is stopped would not take its GPUs."""
        return not is_stopped(one.waiting.client)

    def queued(self, one: Wait) -> QueuedWait:
        """Return the wait for the check."""
        self._ends[one.waiting.owner] = one.waiting.ends_at_uptime_s
        request = self._requests[one.waiting.owner] = _Request(self, one)
        return QueuedWait(request, request.waiter(), one.refusal, one.state)

    def run(self, waits: Sequence[QueuedWait]) -> Mapping[str, Grant | Refusal | StillWaiting]:
        """Check the queue."""
        allocator = open_allocator(self.node, self.ports.probe(self.config), self.ledger)
        heartbeat_s = heartbeat_interval_s(self.config)
        positions = NodeQueuePositions(self.ledger, self._ends)
        return QueueCheck(allocator, positions, heartbeat_s).check(waits)

    def answer(self, one: Wait, outcome: Grant | Refusal | StillWaiting) -> Answered | StillWaiting:
        """Return what the client is told."""
        failure = self._requests[one.waiting.owner].failure
        if failure is not None:
            return Answered(one.answers.failed(failure))
        if isinstance(outcome, Refusal):
            note_refused(state_dir(self.config.node, self.node), outcome.kind.value)
            return Answered(one.answers.refused(outcome))
        if isinstance(outcome, Grant):
            return self._granted(one, outcome)
        return outcome

    def _granted(self, one: Wait, grant: Grant) -> Answered:
        try:
            return Answered(one.answers.granted(self.config, grant), is_grant=True)
        except Exception as exc:
            self.ledger.release(self.node, one.waiting.owner, GAVE_UP)
            return Answered(one.answers.failed(_own_failure(exc)))

    def feasibility(
        self, view: NodeView, waiter: Waiter, validation: ValidationConfig, *, force: bool
    ) -> Feasibility | None:
        """Return what a waiter could get by the view's scan; the same for all who want the same."""
        if view is not self._judged:
            self._judged, self._feasibility = view, {}
        wish = (waiter.count, waiter.gpus, waiter.profile, validation.memory_threshold_mb, force)
        if wish not in self._feasibility:
            self._feasibility[wish] = scan_feasibility(view, waiter, validation, force=force)
        return self._feasibility[wish]

    def _peer_lives(self) -> bool:
        return self.trying is None or is_alive(self.trying)


class _Request:
    """`WaitedRequest` of one waiter; `failure` is an error of its own, which ends its wait."""

    def __init__(self, check: _Check, wait: Wait) -> None:
        self._check = check
        self._wait = wait
        run = wait.waiting.run
        self._recording = RunRecording(check.files, wait.waiting.claim, run) if run else None
        self._config = _config_for(check.config, wait.waiting)
        self.failure: CanhazgpuError | None = None

    def reserve(self) -> Grant | Refusal:
        """See `WaitedRequest`."""
        self._check.trying = self._wait.waiting.client
        try:
            outcome = self._attempts().reserve()
        except DeadlineError:
            # Nothing was granted, and the next attempt may be quicker.
            outcome = self._wait.refusal
        except StoreError:
            self._forget_run()
            raise
        except Exception as exc:
            # Whatever it is, it is this request's own: nobody else is to wait for its end.
            self.failure = _own_failure(exc)
            outcome = Refusal(str(self.failure), kind=RefusalKind.NEVER)
        finally:
            self._check.trying = None
        if not isinstance(outcome, Grant):
            self._forget_run()
        return outcome

    def waiter(self) -> Waiter:
        """See `WaitedRequest`."""
        return self._wait.waiting.waiter(boot_id(), pid_namespace())

    def feasibility(self, view: NodeView, waiter: Waiter) -> Feasibility | None:
        """See `WaitedRequest`."""
        gpus = self._wait.waiting.gpus
        force = gpus.force and waiter.owner == self._wait.waiting.owner
        return self._check.feasibility(view, waiter, self._config.validation, force=force)

    def _attempts(self) -> ReserveAttempts:
        check, waiting = self._check, self._wait.waiting
        probe = check.ports.probe(self._config)
        before_commit = self._recording.write if self._recording else _record_nothing
        allocator = open_allocator(check.node, probe, check.ledger, before_commit)
        acquisition = Acquisition(
            check.node, self._config, allocator, check.ledger, waiting.claim, waiting.limits
        )
        return ReserveAttempts(acquisition, waiting.gpus, for_command=waiting.run is not None)

    def _forget_run(self) -> None:
        if self._recording is not None:
            self._recording.forget()


def _own_failure(error: Exception) -> CanhazgpuError:
    """Return what one client is told of an error that ends its wait alone."""
    if isinstance(error, CanhazgpuError):
        return error
    name = type(error).__name__
    return UnavailableError(f"internal error of the agent: {name}: {error} (please report this)")


def _config_for(config: Config, waiting: WaitingRequest) -> Config:
    threshold_mb = waiting.gpus.memory_threshold_mb
    if threshold_mb is None:
        return config
    return replace(config, validation=replace(config.validation, memory_threshold_mb=threshold_mb))


def _record_nothing(_gpus: Sequence[str]) -> None:
    """Do nothing before a grant is final."""
