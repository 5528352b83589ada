"""Which of Slurm's jobs are still on this node.

A job with a step has a slurmstepd, which listens on a socket ``NODE_JOBID.STEP`` in slurmd's spool
directory. A slurmstepd that was killed leaves the file, on which nobody listens. Reading this needs
none of Slurm's commands. A job without a step, such as salloc's, has no slurmstepd; for such jobs
``squeue`` runs once, with a time limit. A job counts as present unless it is known to be absent.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Collection
from pathlib import Path

from canhazgpu.errors import SchedulerError
from canhazgpu.schedulers.slurm.control.commands import SlurmCommands

STATES_ON_NODE = (
    "RUNNING",
    "CONFIGURING",
    "COMPLETING",
    "SUSPENDED",
    "STOPPED",
    "SIGNALING",
    "STAGE_OUT",
    "RESIZING",
)
"""States of a job that is on its nodes, completing included."""
SQUEUE_NODE_STATES = ("--noheader", "--array", "--states=all", "--format=%A %T", "--nodelist")


class JobPresence:
    """The presence of jobs on one node, at the time of each call.

    Pass job ids that were read before the call: a job that starts during it is on the node.
    """

    def __init__(self, node: str, spool_dir: Path | None, commands: SlurmCommands) -> None:
        """Take slurmd's spool directory, None if it is not known."""
        self._node = node
        self._spool_dir = spool_dir
        self._commands = commands

    def is_absent(self, job_id: str) -> bool:
        """Tell whether the job is not on this node any more, not even completing."""
        return job_id in self.absent([job_id])

    def absent(self, job_ids: Collection[str]) -> set[str]:
        """Return those of the jobs that are not on this node any more."""
        without_stepd = set(job_ids) - self.jobs_with_step() if job_ids else set()
        if not without_stepd:
            return set()
        try:
            listed = parse_jobs_on_node(
                self._commands.run("squeue", *SQUEUE_NODE_STATES, self._node)
            )
        except SchedulerError:
            return set()
        return without_stepd - listed

    def jobs_with_step(self, min_age_s: float = 0.0) -> set[str]:
        """Return the jobs that have a slurmstepd which is at least so old."""
        if self._spool_dir is None:
            return set()
        prefix = f"{self._node}_"
        try:
            sockets = [path for path in self._spool_dir.iterdir() if path.name.startswith(prefix)]
        except OSError:
            return set()
        return {
            path.name.removeprefix(prefix).partition(".")[0]
            for path in sockets
            if path.is_socket() and _is_old(path, min_age_s) and _is_listening(path)
        }


def parse_jobs_on_node(text: str) -> frozenset[str]:
    """Return the ids of the jobs on the node, from the output for `SQUEUE_NODE_STATES`."""
    lines = (line.split() for line in text.splitlines())
    return frozenset(words[0] for words in lines if len(words) == 2 and words[1] in STATES_ON_NODE)


def _is_old(path: Path, min_age_s: float) -> bool:
    """Tell whether the socket was made so long ago; False for one that is gone."""
    try:
        return min_age_s <= 0 or time.time() - path.stat().st_mtime >= min_age_s
    except OSError:
        return False


def _is_listening(path: Path) -> bool:
    """Tell whether a process listens on the socket; True if that is unknown."""
    try:
        # By way of its directory: the whole path can be too long for a socket address.
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
            probe.connect(f"/proc/self/fd/{directory}/{path.name}")
    except OSError as exc:
        return exc.errno not in (errno.ECONNREFUSED, errno.ENOENT)
    finally:
        os.close(directory)
    return True
