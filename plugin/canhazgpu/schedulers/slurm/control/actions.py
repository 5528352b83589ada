"""Requeue or cancel a job, drain a node, and log why.

What Slurm does with each command was measured on 22.05:

- ``scontrol requeue`` in a prolog that then exits 0 leaves the node up and the job pending. The
  job's script never starts. ``requeuehold`` does the same, and the job waits for
  ``scontrol release``.
- Slurm refuses both for an interactive job and for a job with ``--no-requeue``. After exit 0 such
  a job would run, so its user is notified (``notify``) and the job is cancelled (``scancel``).
- The last task of an array has the array's own id, and a command with that id applies to every
  task. That task is addressed as ``ARRAYID_TASKID``.
- A command with the leader's id of a heterogeneous job applies to all its components, comments
  included.
- A drained node keeps its reason when its hook fails afterwards.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from pathlib import Path

from canhazgpu.conflict.requeue_comment import COMMENT_PREFIX
from canhazgpu.errors import SchedulerError
from canhazgpu.node.system_log import single_line, write_syslog
from canhazgpu.schedulers.port import ActionOutcome, ActionResult, JobContext
from canhazgpu.schedulers.slurm.control import queries
from canhazgpu.schedulers.slurm.control.commands import SlurmCommands
from canhazgpu.schedulers.slurm.control.shortened_comment import shortened_comment

QUERY_SHARE = 1 / 3
"""The share of the time for all commands that a query may take."""


class SlurmActions:
    """`JobActions` for Slurm; see `canhazgpu.schedulers.port.JobActions`."""

    def __init__(self, commands: SlurmCommands, log_file: Path | None) -> None:
        self._commands = commands
        self._log_file = log_file
        self._states: dict[str, str | None] = {}

    def requeue(self, job: JobContext, note: str, *, hold: bool = False) -> ActionResult:
        """See `JobActions.requeue`."""
        job_id = job.owner.job_id
        try:
            address, state = self._job_entry(job_id)
            if state not in queries.STARTING_STATES:
                return ActionResult(
                    ActionOutcome.DONE, f"left alone, it is {state or 'gone'} already"
                )
            self._try_scontrol("update", f"job={address}", f"comment={_shortened(note)}")
            return self._requeue(job_id, address, hold=hold)
        except SchedulerError as exc:
            return _failed_result(exc)

    def _requeue(self, job_id: str, address: str, *, hold: bool) -> ActionResult:
        verb, done = ("requeuehold", "held") if hold else ("requeue", "requeued")
        try:
            self._commands.run("scontrol", verb, address)
        except SchedulerError as refusal:
            # If only the answer was lost, the job is in the queue already. It also is if another
            # of its nodes requeued it first.
            if self._job_entry(job_id)[1] not in queries.LAUNCHED_STATES:
                return ActionResult(ActionOutcome.DONE, f"requeued, as its state says ({refusal})")
            return ActionResult(ActionOutcome.REFUSED, str(refusal))
        return ActionResult(ActionOutcome.DONE, done)

    def cancel(self, job: JobContext, note: str) -> ActionResult:
        """See `JobActions.cancel`."""
        try:
            address, state = self._job_entry(job.owner.job_id)
            if state not in queries.STARTING_STATES:
                return ActionResult(
                    ActionOutcome.DONE, f"left alone, it is {state or 'gone'} already"
                )
            self._try_scontrol("update", f"job={address}", f"comment={_shortened(note)}")
            self._try_scontrol("notify", address, _shortened(note))
            self._commands.run("scancel", address)
        except SchedulerError as exc:
            return _failed_result(exc)
        return ActionResult(ActionOutcome.DONE, "cancelled")

    def notify_user(self, job: JobContext, note: str) -> None:
        """See `JobActions.notify_user`: the job's comment, and an interactive job's terminal."""
        with contextlib.suppress(SchedulerError):
            address, _ = self._job_entry(job.owner.job_id)
            self._try_scontrol("update", f"job={address}", f"comment={_shortened(note)}")
            self._try_scontrol("notify", address, _shortened(note))

    def drain(self, node: str, note: str) -> ActionResult:
        """See `JobActions.drain`."""
        try:
            states = self._commands.run("sinfo", *queries.SINFO_NODE_STATE, node, share=QUERY_SHARE)
            if queries.is_drained_or_down(states, node):
                return ActionResult(ActionOutcome.DONE, "was out of service already")
            reason = f"reason={_shortened(note)}"
            self._commands.run("scontrol", "update", f"nodename={node}", "state=drain", reason)
        except SchedulerError as exc:
            return ActionResult(ActionOutcome.FAILED, f"could not be drained: {exc}")
        return ActionResult(ActionOutcome.DONE, "drained")

    def running_job_uids(self, node: str) -> Mapping[str, int] | None:
        """See `JobActions.running_job_uids`."""
        try:
            text = self._commands.run("squeue", *queries.SQUEUE_NODE, node, share=QUERY_SHARE)
        except SchedulerError:
            return None
        return queries.parse_running_jobs(text)

    def log(self, message: str) -> None:
        """See `JobActions.log`."""
        text = single_line(message)
        write_syslog(text)
        if self._log_file is not None:
            _append_line(self._log_file, f"[{_timestamp()}] {COMMENT_PREFIX}{text}\n")

    def has_stopped_running(self, job_id: str) -> bool:
        """Tell whether the job does not run; it may be completing. False without an answer."""
        state = self._job_state(job_id)
        return state is not None and state not in queries.RUNNING_STATES

    def is_finished(self, job_id: str) -> bool:
        """Tell whether the job neither runs nor completes on any node. False without an answer."""
        state = self._job_state(job_id)
        return state is not None and state not in (*queries.RUNNING_STATES, "COMPLETING")

    def _job_state(self, job_id: str) -> str | None:
        """Return the job's state, "" for a job unknown to Slurm, None without an answer.

        Each job is queried once: a waiting job asks about the same holder again and again. After
        a query without an answer, none is sent any more.
        """
        if job_id not in self._states and None not in self._states.values():
            self._states[job_id] = self._query_job_state(job_id)
        return self._states.get(job_id)

    def _query_job_state(self, job_id: str) -> str | None:
        try:
            return self._job_entry(job_id, share=QUERY_SHARE)[1]
        except SchedulerError as exc:
            return "" if "Invalid job id" in str(exc) else None

    def _job_entry(self, job_id: str, share: float = 1.0) -> tuple[str, str]:
        text = self._commands.run("squeue", *queries.SQUEUE_JOB, job_id, share=share)
        return queries.parse_job_entry(text, job_id)

    def _try_scontrol(self, *arguments: str) -> None:
        with contextlib.suppress(SchedulerError):
            self._commands.run("scontrol", *arguments)


def _failed_result(error: SchedulerError) -> ActionResult:
    return ActionResult(
        ActionOutcome.FAILED, f"runs unchecked, since it could not be sent back: {error}"
    )


def _shortened(note: str) -> str:
    return shortened_comment(single_line(note))


def _timestamp() -> str:
    now = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(now)) + f".{int(now * 1000) % 1000:03}"


def _append_line(path: Path, line: str) -> None:
    """Add a line to slurmd's log, to which slurmd writes a hook's output only if the hook fails."""
    with contextlib.suppress(OSError):
        flags = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(path, flags)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)
