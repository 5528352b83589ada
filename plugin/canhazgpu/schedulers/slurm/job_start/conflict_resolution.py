"""A job whose GPUs cannot be granted: look what is in the way, and go along the policies."""

from __future__ import annotations

import time

from canhazgpu.allocation.refusal import Refusal, RefusalKind
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
from canhazgpu.conflict.policy import ConflictCause, ConflictFacts, next_step
from canhazgpu.errors import InputError
from canhazgpu.gpu.scan import GpuReading, missing_gpu_reading
from canhazgpu.node.boot_clock import process_start_time
from canhazgpu.schedulers.slurm.job_start.allocation import AllocationResult, JobAllocation
from canhazgpu.schedulers.slurm.job_start.kill_policy import KillPolicy
from canhazgpu.schedulers.slurm.job_start.scheduler_actions import SchedulerActions
from canhazgpu.schedulers.slurm.job_start.wake_events import WakeEvents

RETRY_INTERVAL_S = 1.0
"""Longest time between two attempts of a waiting job."""
MEMORY_RELEASE_TIMEOUT_S = 3.0
"""How long after the end of processes their memory is waited for."""
MAX_UNEXPLAINED_REFUSALS = 3
"""Attempts refused although a look finds nothing in the way."""

GPUS_UNREADABLE = JobConflict(scan_failed=True)
OWNERS_CHANGING = JobConflict((Obstacle(missing_gpu_reading(""), ConflictCause.RESERVED),))
"""GPUs that keep changing hands."""


class ConflictResolution:
    """One job's conflict on this node."""

    def __init__(self, way: JobAllocation, refusal: Refusal) -> None:
        self._allocation = way
        self._hook = way.hook
        self._refusal = refusal
        self._since = ""
        self._gpus: tuple[GpuReading, ...] = ()
        self._chain = way.hook.config.slurm.chain_of(way.hook.job.partition)
        self._actions = SchedulerActions(way.hook)
        self._kill_policy = KillPolicy(way.hook, kills=Step(StepKind.KILL) in self._chain)

    @property
    def _reason(self) -> str:
        return self._refusal.text + self._since

    def resolve(self) -> None:
        """Go along the chain until the job's fate is decided."""
        place, unclear = 0, 0
        blind = self._refusal.kind is RefusalKind.FAULT
        situation = GPUS_UNREADABLE if blind else self._assess()
        while True:
            if not situation.causes:
                if self._accept_grant(self._allocation.attempt(), "job starts"):
                    return
                unclear += 1
                situation = (
                    self._assess() if unclear < MAX_UNEXPLAINED_REFUSALS else OWNERS_CHANGING
                )
                continue
            place, step = next_step(self._chain, place, self._facts(situation))
            if self._execute_step(step, situation):
                if self._actions.scheduler_unreachable and not self._allocation.by_scheduler:
                    self._grant_without_scheduler()
                return
            place += 1
            if step.kind in (StepKind.WAIT, StepKind.SWAP, StepKind.KILL):
                situation = self._assess()

    def _facts(self, situation: JobConflict) -> ConflictFacts:
        by_scheduler = self._allocation.by_scheduler
        return ConflictFacts(
            situation.causes,
            requeues=self._hook.job.requeues,
            max_requeues=self._hook.config.slurm.max_requeues,
            can_swap=by_scheduler and not self._hook.node_conf.constrains_devices,
            can_kill=self._kill_policy.can_clear(situation),
            # GPUs of our own choice have to be granted, or they are another job's next.
            can_warn=by_scheduler or situation.causes == {ConflictCause.UNRESERVED},
            can_requeue=not self._actions.requeue_refusal,
        )

    def _execute_step(self, step: Step, situation: JobConflict) -> bool:
        """Carry out a step; tells whether the job's fate is decided with it."""
        if step.kind is StepKind.WAIT:
            return self._wait(step.seconds, situation)
        if step.kind is StepKind.SWAP:
            return self._swap(situation)
        if step.kind is StepKind.KILL:
            return self._kill_policy.end_processes(situation, self._assess) and self._wait(
                MEMORY_RELEASE_TIMEOUT_S, situation
            )
        if step.kind is StepKind.WARN:
            return self._warn(situation)
        orders = {
            StepKind.REQUEUE: self._actions.requeue,
            StepKind.DRAIN: self._actions.drain,
            StepKind.HOLD: self._actions.hold,
            StepKind.END: self._actions.cancel,
        }
        return orders[step.kind](self._reason)

    def _assess(self) -> JobConflict:
        """Scan, read the ledger, and return what is in the way now."""
        observation = self._hook.probe.start().observe()
        if observation.scan.fault is not None:
            return GPUS_UNREADABLE
        self._gpus = observation.scan.gpus
        view = self._allocation.service.reaped_view()
        self._kill_policy.assess(observation, view)
        owner = self._hook.job.owner
        if self._allocation.by_scheduler:
            situation = conflict_for_given(self._assigned_uuids(), observation, view, owner)
        else:
            situation = conflict_for_count(
                self._allocation.count, observation, view, owner, self._kill_policy.can_free
            )
        self._since = (
            in_use_since_text(situation, _start_times(situation), _time_text) or self._since
        )
        return situation

    def _accept_grant(self, outcome: AllocationResult, how: str, *, swapped: bool = False) -> bool:
        """Let the job start with what an attempt granted; tells whether it did."""
        if isinstance(outcome, Refusal):
            self._refusal = outcome
            return False
        reason = self._reason
        self._allocation.accept(outcome, swapped=swapped)
        self._actions.log(reason, how)
        return True

    def _wait(self, seconds: float, situation: JobConflict) -> bool:
        began = time.monotonic()
        changes = WakeEvents(self._allocation, situation)
        try:
            while True:
                outcome = self._allocation.attempt()
                waited_s = time.monotonic() - began
                if self._accept_grant(outcome, f"job starts, {waited_s:.0f} s later"):
                    return True
                if waited_s >= seconds:
                    return False
                changes.wait(min(seconds - waited_s, RETRY_INTERVAL_S))
        finally:
            changes.close()

    def _swap(self, situation: JobConflict) -> bool:
        """Give the job clean GPUs in place of those that are not."""
        chosen = swap_gpus(self._assigned_uuids(), situation, self._allocation.count)
        if chosen is None:
            return False
        outcome = self._allocation.attempt_gpus(chosen)
        return self._accept_grant(outcome, "job starts on other GPUs of the node", swapped=True)

    def _warn(self, situation: JobConflict) -> bool:
        """Let the job run on the GPUs it has, and hold in the ledger those that can be held."""
        if not self._allocation.by_scheduler:
            outcome = self._allocation.attempt(force=True)
            if isinstance(outcome, Refusal):
                self._refusal = outcome
                return False
            self._allocation.accept(outcome)
        elif not situation.scan_failed:
            held = reservable_gpus(self._assigned_uuids(), situation)
            if held and isinstance(self._allocation.attempt_gpus(held, force=True), Refusal):
                return False
            self._allocation.record_gpus(self._allocation.assigned_gpus(self._gpus))
        return self._actions.warn(self._reason)

    def _grant_without_scheduler(self) -> None:
        """Let a job that nobody takes back have GPUs that nobody has reserved.

        It runs whatever we do, and by the scheduler's numbers on GPUs that are others'.
        """
        outcome = self._allocation.attempt(force=True)
        if isinstance(outcome, Refusal):
            self._actions.log(outcome.text, "job gets no GPU of canhazgpu's")
        else:
            self._allocation.accept(outcome)
            self._actions.log(self._reason, "job runs on GPUs that nobody has reserved")

    def _assigned_uuids(self) -> list[str]:
        """Return the GPUs that the scheduler gave; "" for all where one of them is not shown."""
        try:
            return self._allocation.assigned_uuids(self._gpus)
        except InputError:
            return [""]


def _start_times(situation: JobConflict) -> dict[int, float]:
    found = {process.pid: process_start_time(process.pid) for process in situation.processes}
    return {pid: at for pid, at in found.items() if at is not None}


def _time_text(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
