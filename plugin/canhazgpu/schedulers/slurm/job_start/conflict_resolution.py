"""Resolve a conflict: assess why a job's GPUs are refused, and apply the chain of policies."""

from __future__ import annotations

import time

from canhazgpu.allocation.refusal import Refusal, RefusalKind
from canhazgpu.allocation.shared_use import observed_for_share
from canhazgpu.config.conflict_chain import Step, StepKind
from canhazgpu.conflict.obstacles import (
    JobConflict,
    Obstacle,
    conflict_for_count,
    conflict_for_given,
    in_use_since_text,
    reservable_gpus,
    swap_gpus,
)
from canhazgpu.conflict.policy import ConflictCause, ConflictFacts, main_cause, next_step
from canhazgpu.errors import InputError
from canhazgpu.gpu.scan import GpuReading, missing_gpu_reading
from canhazgpu.node.boot_clock import process_start_time
from canhazgpu.schedulers.slurm.hook.log import SeenConflict
from canhazgpu.schedulers.slurm.job_start.allocation import AllocationResult, JobAllocation
from canhazgpu.schedulers.slurm.job_start.kill_policy import KillPolicy
from canhazgpu.schedulers.slurm.job_start.scheduler_actions import SchedulerActions
from canhazgpu.schedulers.slurm.job_start.wake_events import WakeEvents

RETRY_INTERVAL_S = 1.0
"""Longest time between two attempts of a waiting job."""
MEMORY_RELEASE_TIMEOUT_S = 3.0
"""Longest wait for memory to be released after its processes ended."""
MAX_UNEXPLAINED_REFUSALS = 3
"""How many refused attempts are repeated at once while a scan finds no obstacle."""

GPUS_UNREADABLE = JobConflict(scan_failed=True)
OWNERS_CHANGING = JobConflict((Obstacle(missing_gpu_reading(""), ConflictCause.RESERVED),))
"""Stands for GPUs that change owners between the attempts."""


class ConflictResolution:
    """One job's conflict on this node."""

    def __init__(self, allocation: JobAllocation, refusal: Refusal) -> None:
        self._allocation = allocation
        self._hook = allocation.hook
        self._refusal = refusal
        self._since = ""
        self._gpus: tuple[GpuReading, ...] = ()
        self._chain = allocation.hook.config.slurm.chain_of(allocation.hook.job.partition)
        self._actions = SchedulerActions(allocation.hook)
        self._kill_policy = KillPolicy(allocation.hook, kills=Step(StepKind.KILL) in self._chain)

    @property
    def _reason(self) -> str:
        return self._refusal.text + self._since

    def resolve(self) -> bool:
        """Apply the steps of the chain until it is decided what becomes of the job.

        Returns false where the scheduler could not be asked, and the job runs for want of that:
        then a task of the job has it checked again, and has no GPU until it is.
        """
        step_index, unexplained = 0, 0
        blind = self._refusal.kind is RefusalKind.FAULT
        conflict = GPUS_UNREADABLE if blind else self._assess()
        cause = main_cause(conflict.causes)
        self._hook.hook_log.conflict = SeenConflict(cause)
        while True:
            self._hook.raise_if_fenced()
            if not conflict.causes:
                if self._accept_grant(self._allocation.attempt(), "job starts"):
                    return True
                unexplained += 1
                conflict = (
                    self._assess() if unexplained < MAX_UNEXPLAINED_REFUSALS else OWNERS_CHANGING
                )
                continue
            step_index, step = next_step(self._chain, step_index, self._facts(conflict))
            if self._execute_step(step, conflict):
                failed = self._actions.scheduler_unreachable
                self._hook.hook_log.conflict = SeenConflict(cause, step.kind.value, failed)
                if self._actions.scheduler_unreachable and not self._allocation.scheduler_picks:
                    self._grant_without_scheduler()
                return not self._actions.scheduler_unreachable
            step_index += 1
            if step.kind in (StepKind.WAIT, StepKind.SWAP, StepKind.KILL):
                conflict = self._assess()

    def _facts(self, conflict: JobConflict) -> ConflictFacts:
        scheduler_picks = self._allocation.scheduler_picks
        return ConflictFacts(
            conflict.causes,
            requeues=self._hook.job.requeues,
            max_requeues=self._hook.config.slurm.max_requeues,
            can_swap=scheduler_picks
            and self._allocation.claim.share is None
            and not self._hook.node_conf.constrains_devices,
            can_kill=self._kill_policy.can_clear(conflict),
            # GPUs that canhazgpu picks must be reserved, or another job gets them too.
            can_warn=scheduler_picks or conflict.causes == {ConflictCause.UNRESERVED},
            can_requeue=not self._actions.requeue_refusal,
        )

    def _execute_step(self, step: Step, conflict: JobConflict) -> bool:
        """Execute a step; returns whether it decides what becomes of the job."""
        if step.kind is StepKind.WAIT:
            return self._wait(step.seconds, conflict)
        if step.kind is StepKind.SWAP:
            return self._swap(conflict)
        if step.kind is StepKind.KILL:
            return self._kill_policy.end_processes(conflict, self._assess) and self._wait(
                MEMORY_RELEASE_TIMEOUT_S, conflict
            )
        if step.kind is StepKind.WARN:
            return self._warn(conflict)
        decisive_steps = {
            StepKind.REQUEUE: self._actions.requeue,
            StepKind.DRAIN: self._actions.drain,
            StepKind.HOLD: self._actions.hold,
            StepKind.END: self._actions.cancel,
        }
        return decisive_steps[step.kind](self._reason)

    def _assess(self) -> JobConflict:
        """Scan the GPUs, read the ledger, and return the obstacles of now."""
        observation = self._hook.probe.start().observe()
        if observation.scan.fault is not None:
            return GPUS_UNREADABLE
        self._gpus = observation.scan.gpus
        view = self._allocation.allocator.reaped_view()
        self._kill_policy.assess(observation, view)
        owner, claim = self._hook.job.owner, self._allocation.claim
        if self._allocation.scheduler_picks:
            seen = observed_for_share(claim, observation, view)
            conflict = conflict_for_given(
                self._assigned_uuids(), seen, view, owner, self._candidates(), claim
            )
        else:
            conflict = conflict_for_count(
                self._allocation.count,
                observation,
                view,
                owner,
                self._kill_policy.can_free,
                self._candidates(),
            )
        self._since = in_use_since_text(conflict, _start_times(conflict), _time_text) or self._since
        return conflict

    def _accept_grant(self, outcome: AllocationResult, what: str, *, swapped: bool = False) -> bool:
        """Start the job if the attempt was granted; returns whether it was."""
        if isinstance(outcome, Refusal):
            self._refusal = outcome
            return False
        self._hook.raise_if_fenced()
        reason = self._reason
        self._allocation.accept(outcome, swapped=swapped)
        self._actions.log(reason, what)
        return True

    def _wait(self, seconds: float, conflict: JobConflict) -> bool:
        began = time.monotonic()
        wake_events = WakeEvents(self._allocation, conflict)
        try:
            while True:
                outcome = self._allocation.attempt()
                waited_s = time.monotonic() - began
                if self._accept_grant(outcome, f"job starts, {waited_s:.0f} s later"):
                    return True
                if waited_s >= seconds:
                    return False
                self._hook.raise_if_fenced()
                wake_events.wait(min(seconds - waited_s, RETRY_INTERVAL_S))
        finally:
            wake_events.close()

    def _swap(self, conflict: JobConflict) -> bool:
        """Replace the job's GPUs that are not free by free ones."""
        chosen = swap_gpus(self._assigned_uuids(), conflict, self._allocation.count)
        if chosen is None:
            return False
        outcome = self._allocation.attempt_gpus(chosen)
        return self._accept_grant(outcome, "job starts on other GPUs of the node", swapped=True)

    def _warn(self, conflict: JobConflict) -> bool:
        """Start the job in spite of the obstacles, and reserve those GPUs that can be reserved."""
        if not self._allocation.scheduler_picks:
            outcome = self._allocation.attempt(force=True)
            if isinstance(outcome, Refusal):
                self._refusal = outcome
                return False
            self._allocation.accept(outcome)
        elif not conflict.scan_failed:
            held = reservable_gpus(self._assigned_uuids(), conflict)
            if held and isinstance(self._allocation.attempt_gpus(held, force=True), Refusal):
                return False
            assigned = self._allocation.assigned_gpus(self._gpus)
            self._allocation.record_gpus(assigned, self._gpus)
        return self._actions.warn(self._reason)

    def _grant_without_scheduler(self) -> None:
        """Give unreserved GPUs to a job that the scheduler could not requeue or cancel.

        The job runs in any case. Without a grant it would use the scheduler's numbers, and so the
        GPUs of others.
        """
        outcome = self._allocation.attempt(force=True)
        if isinstance(outcome, Refusal):
            self._actions.log(outcome.text, "job gets no GPU of canhazgpu's")
        else:
            self._allocation.accept(outcome)
            self._actions.log(self._reason, "job runs on GPUs that nobody has reserved")

    def _candidates(self) -> frozenset[str] | None:
        """Return the GPUs that are as good as the scheduler's, None for all."""
        try:
            return self._allocation.candidates(self._gpus)
        except InputError:
            return frozenset()

    def _assigned_uuids(self) -> list[str]:
        """Return the UUIDs of the scheduler's GPUs; [""] if the driver lacks one of them."""
        try:
            return self._allocation.assigned_uuids(self._gpus)
        except InputError:
            return [""]


def _start_times(conflict: JobConflict) -> dict[int, float]:
    found = {process.pid: process_start_time(process.pid) for process in conflict.processes}
    return {pid: at for pid, at in found.items() if at is not None}


def _time_text(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
