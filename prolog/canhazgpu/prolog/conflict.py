"""A job whose GPUs cannot be granted: look what is in the way, and go along the policies."""

from __future__ import annotations

import time

from canhazgpu.conflict.chain import Step, StepKind
from canhazgpu.conflict.policy import Cause, Facts, next_step
from canhazgpu.conflict.situation import (
    Obstacle,
    Situation,
    since_text,
    situation_of_count,
    situation_of_given,
    substitutes,
    usable,
)
from canhazgpu.errors import InputError
from canhazgpu.gpu.scan import GpuReading
from canhazgpu.node.started import started_at
from canhazgpu.prolog.changes import Changes
from canhazgpu.prolog.clearing import Clearing
from canhazgpu.prolog.orders import Orders
from canhazgpu.prolog.way import Attempted, Way
from canhazgpu.refusal import Refusal, RefusalKind, vanished

LOOK_EVERY_S = 1.0
"""Longest time between two attempts of a waiting job."""
FREED_WITHIN_S = 3.0
"""How long after the end of processes their memory is waited for."""
MAX_UNCLEAR = 3
"""Attempts refused although a look finds nothing in the way."""

BLIND = Situation(blind=True)
UNCLEAR = Situation((Obstacle(vanished(""), Cause.RESERVED),))
"""GPUs that keep changing hands."""


class Conflict:
    """One job's conflict on this node."""

    def __init__(self, way: Way, refusal: Refusal) -> None:
        self._way = way
        self._hook = way.hook
        self._refusal = refusal
        self._since = ""
        self._gpus: tuple[GpuReading, ...] = ()
        self._chain = way.hook.config.slurm.chain_of(way.hook.job.partition)
        self._orders = Orders(way.hook)
        self._clearing = Clearing(way.hook, kills=Step(StepKind.KILL) in self._chain)

    @property
    def _reason(self) -> str:
        return self._refusal.text + self._since

    def resolve(self) -> None:
        """Go along the chain until the job's fate is decided."""
        place, unclear = 0, 0
        blind = self._refusal.kind is RefusalKind.FAULT
        situation = BLIND if blind else self._look()
        while True:
            if not situation.causes:
                if self._starts(self._way.attempt(), "job starts"):
                    return
                unclear += 1
                situation = self._look() if unclear < MAX_UNCLEAR else UNCLEAR
                continue
            place, step = next_step(self._chain, place, self._facts(situation))
            if self._carry_out(step, situation):
                if self._orders.unheard and not self._way.by_scheduler:
                    self._run_unheard()
                return
            place += 1
            if step.kind in (StepKind.WAIT, StepKind.SWAP, StepKind.KILL):
                situation = self._look()

    def _facts(self, situation: Situation) -> Facts:
        by_scheduler = self._way.by_scheduler
        return Facts(
            situation.causes,
            requeues=self._hook.job.requeues,
            max_requeues=self._hook.config.slurm.max_requeues,
            can_swap=by_scheduler and not self._hook.facts.constrains_devices,
            can_kill=self._clearing.would_clear(situation),
            # GPUs of our own choice have to be granted, or they are another job's next.
            can_warn=by_scheduler or situation.causes == {Cause.UNRESERVED},
            can_requeue=not self._orders.refused,
        )

    def _carry_out(self, step: Step, situation: Situation) -> bool:
        """Carry out a step; tells whether the job's fate is decided with it."""
        if step.kind is StepKind.WAIT:
            return self._wait(step.seconds, situation)
        if step.kind is StepKind.SWAP:
            return self._swap(situation)
        if step.kind is StepKind.KILL:
            return self._clearing.clear(situation, self._look) and self._wait(
                FREED_WITHIN_S, situation
            )
        if step.kind is StepKind.WARN:
            return self._warn(situation)
        orders = {
            StepKind.REQUEUE: self._orders.requeue,
            StepKind.DRAIN: self._orders.drain,
            StepKind.HOLD: self._orders.hold,
            StepKind.END: self._orders.end,
        }
        return orders[step.kind](self._reason)

    def _look(self) -> Situation:
        """Scan, read the ledger, and return what is in the way now."""
        observation = self._hook.probe.start().observe()
        if observation.scan.fault is not None:
            return BLIND
        self._gpus = observation.scan.gpus
        view = self._way.service.living_view()
        self._clearing.see(observation, view)
        owner = self._hook.job.owner
        if self._way.by_scheduler:
            situation = situation_of_given(self._wanted(), observation, view, owner)
        else:
            situation = situation_of_count(
                self._way.count, observation, view, owner, self._clearing.would_free
            )
        self._since = since_text(situation, _starts_of(situation), _time_text) or self._since
        return situation

    def _starts(self, outcome: Attempted, how: str, *, swapped: bool = False) -> bool:
        """Let the job start with what an attempt granted; tells whether it did."""
        if isinstance(outcome, Refusal):
            self._refusal = outcome
            return False
        reason = self._reason
        self._way.take(outcome, swapped=swapped)
        self._orders.log(reason, how)
        return True

    def _wait(self, seconds: float, situation: Situation) -> bool:
        began = time.monotonic()
        changes = Changes(self._way, situation)
        try:
            while True:
                outcome = self._way.attempt()
                waited_s = time.monotonic() - began
                if self._starts(outcome, f"job starts, {waited_s:.0f} s later"):
                    return True
                if waited_s >= seconds:
                    return False
                changes.wait(min(seconds - waited_s, LOOK_EVERY_S))
        finally:
            changes.close()

    def _swap(self, situation: Situation) -> bool:
        """Give the job clean GPUs in place of those that are not."""
        chosen = substitutes(self._wanted(), situation, self._way.count)
        if chosen is None:
            return False
        outcome = self._way.attempt_given(chosen)
        return self._starts(outcome, "job starts on other GPUs of the node", swapped=True)

    def _warn(self, situation: Situation) -> bool:
        """Let the job run on the GPUs it has, and hold in the ledger those that can be held."""
        if not self._way.by_scheduler:
            outcome = self._way.attempt(force=True)
            if isinstance(outcome, Refusal):
                self._refusal = outcome
                return False
            self._way.take(outcome)
        elif not situation.blind:
            held = usable(self._wanted(), situation)
            if held and isinstance(self._way.attempt_given(held, force=True), Refusal):
                return False
            self._way.record(self._way.of_positions(self._gpus))
        return self._orders.warn(self._reason)

    def _run_unheard(self) -> None:
        """Let a job that nobody takes back have GPUs that nobody has reserved.

        It runs whatever we do, and by the scheduler's numbers on GPUs that are others'.
        """
        outcome = self._way.attempt(force=True)
        if isinstance(outcome, Refusal):
            self._orders.log(outcome.text, "job gets no GPU of canhazgpu's")
        else:
            self._way.take(outcome)
            self._orders.log(self._reason, "job runs on GPUs that nobody has reserved")

    def _wanted(self) -> list[str]:
        """Return the GPUs that the scheduler gave; "" for all where one of them is not shown."""
        try:
            return self._way.wanted(self._gpus)
        except InputError:
            return [""]


def _starts_of(situation: Situation) -> dict[int, float]:
    found = {process.pid: started_at(process.pid) for process in situation.processes}
    return {pid: at for pid, at in found.items() if at is not None}


def _time_text(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
