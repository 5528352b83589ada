"""What ``squeue`` and ``sinfo`` are asked, and what their answers say; pure.

Fields without a user's words in them: a job's name could imitate another job's line.
"""

from __future__ import annotations

LAUNCHED_STATES = ("RUNNING", "CONFIGURING")
STARTING_STATES = (*LAUNCHED_STATES, "PENDING")
RUNNING_STATES = (*LAUNCHED_STATES, "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING")
"""States of a job that has its nodes."""

SQUEUE_JOB = ("--noheader", "--array", "--states=all", "--format=%A %i %T", "--jobs")
SQUEUE_NODE = ("--noheader", "--array", "--states=all", "--format=%A %U %T", "--nodelist")
SINFO_NODE_STATE = ("--noheader", "--Node", "--format=%N %T", "--nodes")


def parse_job_entry(text: str, job_id: str) -> tuple[str, str]:
    """Return how to address the job, and its state, from the answer to `SQUEUE_JOB`.

    The address hits the job alone, but whole: ``ARRAYID_TASKID`` for an array's task, the leader
    for a component of a heterogeneous job (``LEADER+OFFSET``), whose components stand and fall
    together. For an array's own id Slurm prints all its tasks. Both are "" for an unknown job.
    """
    for line in text.splitlines():
        words = line.split()
        if len(words) == 3 and words[0] == job_id:
            return words[1].partition("+")[0], words[2]
    return "", ""


def parse_running_jobs(text: str) -> dict[str, int]:
    """Return the users (uids) of the running jobs by job id, from the answer to `SQUEUE_NODE`."""
    found = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) == 3 and words[1].isdecimal() and words[2] in RUNNING_STATES:
            found[words[0]] = int(words[1])
    return found


def is_drained_or_down(text: str, node: str) -> bool:
    """Tell whether the node gets no jobs already, from the answer to `SINFO_NODE_STATE`."""
    states = [words[1] for words in map(str.split, text.splitlines()) if words[:1] == [node]]
    return any(state.startswith(("drain", "down")) for state in states)
