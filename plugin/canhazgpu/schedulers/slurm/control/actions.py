"""Send a job back, drain a node, and tell the administrator why.

What Slurm does with each command was measured on 22.05:

- ``scontrol requeue`` in a prolog that then exits 0 leaves the node up and the job pending; the
  script never starts. ``requeuehold`` does the same, and the job waits for ``scontrol release``.
- Slurm refuses both for interactive jobs and for ``--no-requeue``; with exit 0 such a job would run
  on, so it is told (``notify``) and ended (``scancel``).
- The last task of an array has the array's own id; a command given that id hits every task. Such a
  task is addressed as ``ARRAYID_TASKID``.
- The leader's id of a heterogeneous job hits all its components, comments included.
- A reason that a drained node has already stays when its hook fails afterwards.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path

from canhazgpu.conflict.job_comment import COMMENT_PREFIX
from canhazgpu.errors import SchedulerError
from canhazgpu.schedulers.port import ActionOutcome, ActionResult, JobContext
from canhazgpu.schedulers.slurm.control import queries
from canhazgpu.schedulers.slurm.control.commands import SlurmCommands

MAX_COMMENT = 400
MAX_COMMENT_TAIL = 40
"""What is kept of the end of a longer comment: since when somebody is in the way."""
DRAIN_PREFIX = COMMENT_PREFIX
"""Begins the reason of every node that canhazgpu drained, and of no other."""
QUERY_SHARE = 1 / 3
"""What a question to Slurm may take of the time for all commands."""
DAEMON_WARNING = 3 * 8 + 4
"""RFC 3164's number for facility daemon, severity warning."""
SYSLOG_SOCKET = "/dev/log"


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
            # An answer that was lost is no refusal: the job then waits in the queue already. So it
            # does where another of its nodes was faster.
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
        """See `JobActions.notify_user`: the job's comment, and the terminal of an interactive job."""
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
        """Tell whether no attempt of the job runs, its end apart; no answer is no yes."""
        state = self._job_state(job_id)
        return state is not None and state not in queries.RUNNING_STATES

    def is_finished(self, job_id: str) -> bool:
        """Tell whether nothing of the job, not even its end, is on any node any more."""
        state = self._job_state(job_id)
        return state is not None and state not in (*queries.RUNNING_STATES, "COMPLETING")

    def _job_state(self, job_id: str) -> str | None:
        """Return the job's state, "" for a job Slurm no longer knows, None where it cannot tell.

        Asked once for each job, so that a job that waits for another one does not ask on and on,
        and once in all where there is no answer.
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
    text = single_line(note)
    if len(text) <= MAX_COMMENT:
        return text
    cut = " ... "
    return text[: MAX_COMMENT - MAX_COMMENT_TAIL - len(cut)] + cut + text[-MAX_COMMENT_TAIL:]


def single_line(text: str) -> str:
    """Return the text as one line without control characters: names in it are their users'."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))


def write_syslog(text: str, priority: int = DAEMON_WARNING) -> None:
    """Write a line to syslog, where there is one that takes it at once.

    The C library's syslog() waits for a full queue, which any user can fill, and a hook that waits
    drains its node. The text's form is RFC 3164's without a time, which the daemon adds.
    """
    message = f"<{priority}>canhazgpu[{os.getpid()}]: {single_line(text)}"
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.setblocking(False)
        log.sendto(message.encode(), SYSLOG_SOCKET)


def _timestamp() -> str:
    now = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(now)) + f".{int(now * 1000) % 1000:03}"


def _append_line(path: Path, line: str) -> None:
    """Add a line to slurmd's log: it shows a hook's output only when the hook fails."""
    with contextlib.suppress(OSError):
        flags = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(path, flags)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)
