"""Send a job back, and tell the administrator why.

What Slurm does with each command was measured on 22.05:

- ``scontrol requeue`` in a prolog that then exits 0 leaves the node up and the job pending; the
  script never starts.
- Slurm refuses it for interactive jobs and for ``--no-requeue``; with exit 0 such a job would run
  on, so it is told (``notify``) and ended (``scancel``).
- The last task of an array has the array's own id; a command given that id hits every task. Such a
  task is addressed as ``ARRAYID_TASKID``.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from pathlib import Path

from canhazgpu.errors import SchedulerError
from canhazgpu.schedulers.port import JobContext
from canhazgpu.schedulers.slurm.commands import SlurmCommands

MAX_COMMENT = 400
COMMENT_PREFIX = "canhazgpu: "
DAEMON_WARNING = 3 * 8 + 4
"""RFC 3164's number for facility daemon, severity warning."""
SYSLOG_SOCKET = "/dev/log"
STARTING_HERE = ("RUNNING", "CONFIGURING")
STILL_STARTING = (*STARTING_HERE, "PENDING")
RUNNING = (*STARTING_HERE, "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING")
"""States of a job that has its nodes."""

# Fields without a user's words in them: a job's name could imitate `scontrol show job`'s.
SQUEUE = ("--noheader", "--array", "--states=all", "--format=%A %i %T", "--jobs")


def queue_entry(text: str, job_id: str) -> tuple[str, str]:
    """Return how to address the job, and its state, from ``squeue -r -o "%A %i %T"``.

    The address hits the job alone, but whole: ``ARRAYID_TASKID`` for an array's task, the leader
    for a component of a heterogeneous job (``LEADER+OFFSET``), whose components stand and fall
    together. For an array's own id Slurm prints all its tasks. Both are "" for an unknown job.
    """
    for line in text.splitlines():
        words = line.split()
        if len(words) == 3 and words[0] == job_id:
            return words[1].partition("+")[0], words[2]
    return "", ""


class SlurmActions:
    """`JobActions` for Slurm; see `canhazgpu.schedulers.port.JobActions`."""

    def __init__(self, commands: SlurmCommands, log_file: Path | None) -> None:
        self._commands = commands
        self._log_file = log_file

    def send_back(self, job: JobContext, reason: str) -> str:
        """See `JobActions.send_back`."""
        job_id = job.owner.job_id
        comment = (COMMENT_PREFIX + printable(reason))[:MAX_COMMENT]
        try:
            address, state = self._entry(job_id)
            if state not in STILL_STARTING:
                return f"left alone, it is {state or 'gone'} already"
            self._try("update", f"job={address}", f"comment={comment}")
            return self._requeue_or_end(job_id, address, comment)
        except SchedulerError as exc:
            return f"runs unchecked, since it could not be sent back: {exc}"

    def log(self, message: str) -> None:
        """See `JobActions.log`."""
        text = printable(message)
        log_to_system(text)
        if self._log_file is not None:
            _append(self._log_file, f"[{_timestamp()}] canhazgpu: {text}\n")

    def is_over(self, job_id: str) -> bool:
        """Tell whether no attempt of the job runs, its end apart; no answer is no yes."""
        state = self._state(job_id)
        return state is not None and state not in RUNNING

    def is_gone(self, job_id: str) -> bool:
        """Tell whether nothing of the job, not even its end, is on any node any more."""
        state = self._state(job_id)
        return state is not None and state not in (*RUNNING, "COMPLETING")

    def _state(self, job_id: str) -> str | None:
        """Return the job's state, "" for a job Slurm no longer knows, None where it cannot tell."""
        try:
            return self._entry(job_id)[1]
        except SchedulerError as exc:
            return "" if "Invalid job id" in str(exc) else None

    def _entry(self, job_id: str) -> tuple[str, str]:
        return queue_entry(self._commands.run("squeue", *SQUEUE, job_id), job_id)

    def _requeue_or_end(self, job_id: str, address: str, comment: str) -> str:
        try:
            self._commands.run("scontrol", "requeue", address)
        except SchedulerError as refusal:
            # An answer that was lost is no refusal: the job then waits in the queue already.
            if self._entry(job_id)[1] not in STARTING_HERE:
                return f"requeued, as its state says ({refusal})"
            self._try("notify", address, comment)
            self._commands.run("scancel", address)
            return f"cancelled, since it cannot be requeued ({refusal})"
        return "requeued"

    def _try(self, *arguments: str) -> None:
        with contextlib.suppress(SchedulerError):
            self._commands.run("scontrol", *arguments)


def printable(text: str) -> str:
    """Return the text as one line without control characters: names in it are their users'."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))


def log_to_system(text: str, priority: int = DAEMON_WARNING) -> None:
    """Write a line to syslog, where there is one that takes it at once.

    The C library's syslog() waits for a full queue, which any user can fill, and a hook that waits
    drains its node. The text's form is RFC 3164's without a time, which the daemon adds.
    """
    message = f"<{priority}>canhazgpu[{os.getpid()}]: {printable(text)}"
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.setblocking(False)
        log.sendto(message.encode(), SYSLOG_SOCKET)


def _timestamp() -> str:
    now = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(now)) + f".{int(now * 1000) % 1000:03}"


def _append(path: Path, line: str) -> None:
    """Add a line to slurmd's log: it shows a hook's output only when the hook fails."""
    with contextlib.suppress(OSError):
        flags = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(path, flags)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)
