"""Which of Slurm's jobs are still on this node.

A job with a step has a shepherd (slurmstepd), which listens on a socket ``NODE_JOBID.STEP`` in
slurmd's spool directory; a shepherd that was killed leaves the file, and nobody listens. That is
asked without Slurm's commands. A job without a step, as salloc's, has none: for that ``squeue`` is
asked, once, and with a deadline. What cannot be told is never "gone".
"""

from __future__ import annotations

import errno
import os
import socket
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
"""States of a job that has something on its nodes, and be it its end."""
SQUEUE_NODE_STATES = ("--noheader", "--array", "--states=all", "--format=%A %T", "--nodelist")


class JobPresence:
    """The jobs of one node, as they are when asked after.

    Ask after jobs that were known before: one that begins meanwhile is on the node with the answer.
    """

    def __init__(self, node: str, spool_dir: Path | None, commands: SlurmCommands) -> None:
        """Take where slurmd keeps its sockets, None where that is not known."""
        self._node = node
        self._spool_dir = spool_dir
        self._commands = commands

    def is_gone(self, job_id: str) -> bool:
        """Tell whether nothing of the job, not even its end, is on this node any more."""
        return job_id in self.absent([job_id])

    def absent(self, job_ids: Collection[str]) -> set[str]:
        """Return those of the jobs of which nothing is on this node any more."""
        doubtful = set(job_ids) - self._jobs_with_stepd() if job_ids else set()
        if not doubtful:
            return set()
        try:
            listed = parse_jobs_on_node(
                self._commands.run("squeue", *SQUEUE_NODE_STATES, self._node)
            )
        except SchedulerError:
            return set()
        return doubtful - listed

    def _jobs_with_stepd(self) -> set[str]:
        """Return the jobs that have a shepherd."""
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
            if path.is_socket() and _is_listening(path)
        }


def parse_jobs_on_node(text: str) -> frozenset[str]:
    """Return the ids in the answer to `SQUEUE_NODE_STATES` of the jobs that have something on the node."""
    lines = (line.split() for line in text.splitlines())
    return frozenset(words[0] for words in lines if len(words) == 2 and words[1] in STATES_ON_NODE)


def _is_listening(path: Path) -> bool:
    """Tell whether a process listens on the socket; where that cannot be told, it does."""
    try:
        # By its directory: the whole path may be longer than a socket's address can be.
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
