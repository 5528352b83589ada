"""The arguments of ``squeue`` and ``sinfo``, and the parsers of their output; pure.

No field contains a user's text: a job's name could imitate another job's line.
"""

from __future__ import annotations

from canhazgpu.conflict.requeue_comment import COMMENT_PREFIX

LAUNCHED_STATES = ("RUNNING", "CONFIGURING")
STARTING_STATES = (*LAUNCHED_STATES, "PENDING")
RUNNING_STATES = (*LAUNCHED_STATES, "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING")
"""States of a job whose nodes are allocated, completing excluded."""

SQUEUE_JOB = ("--noheader", "--array", "--states=all", "--format=%A %i %T", "--jobs")
SQUEUE_NODE = ("--noheader", "--array", "--states=all", "--format=%A %U %T", "--nodelist")
SINFO_NODE_STATE = ("--noheader", "--Node", "--format=%N %T", "--nodes")
SINFO_DRAIN_REASON = ("--noheader", "--Node", "--format=%N|%T|%E", "--nodes")


def parse_job_entry(text: str, job_id: str) -> tuple[str, str]:
    """Return the job's address for commands, and its state, from the output for `SQUEUE_JOB`.

    The address names exactly this job: ``ARRAYID_TASKID`` for a task of an array, the leader's id
    for a component of a heterogeneous job (``LEADER+OFFSET``), whose components start and end
    together. For an array's own id squeue prints all its tasks. Both are "" for an unknown job.
    """
    address, state = _job_entry(text, job_id)
    return address.partition("+")[0], state


def parse_job_address(text: str, job_id: str) -> str:
    """Return the address of this job or component alone, from the output for `SQUEUE_JOB`.

    That is ``ARRAYID_TASKID``, ``LEADER+OFFSET`` or the id itself; "" for an unknown job.
    """
    return _job_entry(text, job_id)[0]


def _job_entry(text: str, job_id: str) -> tuple[str, str]:
    for line in text.splitlines():
        words = line.split()
        if len(words) == 3 and words[0] == job_id:
            return words[1], words[2]
    return "", ""


def parse_running_jobs(text: str) -> dict[str, int]:
    """Return the users (uids) of the running jobs by job id, from the output for `SQUEUE_NODE`."""
    found = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) == 3 and words[1].isdecimal() and words[2] in RUNNING_STATES:
            found[words[0]] = int(words[1])
    return found


def is_drained_or_down(text: str, node: str) -> bool:
    """Tell whether the node is drained or down, from the output for `SINFO_NODE_STATE`."""
    states = [words[1] for words in map(str.split, text.splitlines()) if words[:1] == [node]]
    return any(state.startswith(("drain", "down")) for state in states)


def own_drain_reason(text: str, node: str) -> str:
    """Return canhazgpu's reason for the node's drain, from the output for `SINFO_DRAIN_REASON`.

    "" for a node that is in service, or that somebody else drained. The reason is the line's last
    field: an administrator's reason may contain separators.
    """
    for line in text.splitlines():
        name, state, reason = [*line.split("|", 2), "", ""][:3]
        if name == node and state.startswith("drain") and reason.startswith(COMMENT_PREFIX):
            return reason
    return ""
