"""The actions on a job whose GPUs are refused: requeue, hold, drain, cancel, warn."""

from __future__ import annotations

from canhazgpu.config.conflict_chain import Step, StepKind
from canhazgpu.conflict.policy import ConflictCause, ConflictFacts, main_cause, next_step
from canhazgpu.conflict.requeue_comment import COMMENT_PREFIX, requeue_comment
from canhazgpu.errors import NodeStateError
from canhazgpu.node.system_log import single_line
from canhazgpu.schedulers.port import ActionOutcome, ActionResult
from canhazgpu.schedulers.slurm.hook.log import HookDecision, SeenConflict
from canhazgpu.schedulers.slurm.hook.node_context import JobHook


class SchedulerActions:
    """The actions on one job. Each returns whether it decides what becomes of the job."""

    def __init__(self, hook: JobHook) -> None:
        self._hook = hook
        self._limit = hook.config.slurm.max_requeues
        self.requeue_refusal = ""
        """Why the scheduler refused to requeue the job; empty if it did not refuse."""
        self.scheduler_unreachable = False
        """Whether a request for the job failed, so that the job runs."""

    def log(self, reason: str, what: str, **numbers: int) -> None:
        """Log what happened to the job, and why; the `numbers` are for the history."""
        decision = HookDecision(what, reason, numbers, why_first=True)
        self._hook.actions.log_decision(self._hook.job.owner.job_id, decision)

    def requeue(self, reason: str, *, counted: bool = True) -> bool:
        """Put the job back into the queue."""
        number = self._hook.job.requeues + int(counted)
        note = requeue_comment(number, self._limit, reason)
        answer = self._hook.actions.requeue(self._hook.job, note)
        numbers = {"requeue": number, "max_requeues": self._limit} if counted else {}
        return self._is_decided(answer, reason, **numbers)

    def hold(self, reason: str) -> bool:
        """Put the job back into the queue, held until it is released."""
        note = (
            f"{COMMENT_PREFIX}held after {self._hook.job.requeues} requeues, 'scontrol release"
            f" {self._hook.job.owner.job_id}' lets it try again: {reason}"
        )
        answer = self._hook.actions.requeue(self._hook.job, note, hold=True)
        return self._is_decided(answer, reason, requeues=self._hook.job.requeues)

    def drain(self, reason: str) -> bool:
        """Drain the node, and put the job back into the queue."""
        job_id = self._hook.job.owner.job_id
        node = self._hook.job.node
        answer = self._hook.actions.drain(node, f"{COMMENT_PREFIX}job {job_id}: {reason}")
        self.log(reason, f"{node} {answer.text}")
        if answer.outcome is not ActionOutcome.DONE:
            return False
        return self.requeue(reason, counted=False) or self.cancel(reason)

    def cancel(self, reason: str) -> bool:
        """Notify the user and cancel the job."""
        answer = self._hook.actions.cancel(self._hook.job, COMMENT_PREFIX + reason)
        self.scheduler_unreachable = answer.outcome is ActionOutcome.FAILED
        why = (
            f", since it cannot be requeued ({self.requeue_refusal})"
            if self.requeue_refusal
            else ""
        )
        self.log(reason, f"job {answer.text}{why}")
        return True

    def warn(self, reason: str) -> bool:
        """Notify the user that the job starts in spite of the conflict."""
        note = f"{COMMENT_PREFIX}warning: {reason}"
        self._hook.actions.notify_user(self._hook.job, note)
        try:
            self._hook.records.warn(self._hook.job.owner, single_line(note))
        except NodeStateError as exc:
            self.log(str(exc), "its user is not warned in its output")
        self.log(reason, "job runs all the same")
        return True

    def _is_decided(self, answer: ActionResult, reason: str, **numbers: int) -> bool:
        if answer.outcome is ActionOutcome.REFUSED:
            self.requeue_refusal = answer.text
            return False
        self.scheduler_unreachable = answer.outcome is ActionOutcome.FAILED
        done = numbers if answer.outcome is ActionOutcome.DONE else {}
        self.log(reason, f"job {answer.text}", **done)
        return True


def apply_fault_policy(hook: JobHook, reason: str) -> bool:
    """Apply the steps of the job's chain that handle a failure of canhazgpu itself.

    Returns whether they decided; they did not where the scheduler could not be asked.
    """
    actions = SchedulerActions(hook)
    chain = hook.config.slurm.chain_of(hook.job.partition)
    # GPUs that canhazgpu would pick may be reserved by another job; that is unknown now.
    can_warn = hook.config.slurm.assignment == "slurm" or hook.node_conf.constrains_devices
    step_index, done = 0, False
    while not done:
        facts = ConflictFacts(
            frozenset({ConflictCause.INTERNAL_FAULT}),
            can_warn=can_warn,
            can_requeue=not actions.requeue_refusal,
        )
        step_index, step = next_step(chain, step_index, facts)
        done = _execute_step(actions, step, reason)
        step_index += 1
        hook.hook_log.conflict = SeenConflict(
            main_cause(facts.causes), step.kind.value, actions.scheduler_unreachable
        )
    return not actions.scheduler_unreachable


def _execute_step(actions: SchedulerActions, step: Step, reason: str) -> bool:
    if step.kind is StepKind.REQUEUE:
        return actions.requeue(reason, counted=False)
    if step.kind is StepKind.WARN:
        return actions.warn(reason)
    return actions.cancel(reason)
