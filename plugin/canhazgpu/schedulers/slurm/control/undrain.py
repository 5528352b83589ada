"""Put a node back into service that canhazgpu drained, and no other."""

from __future__ import annotations

from canhazgpu.node.drain_record import DrainRecord
from canhazgpu.schedulers.slurm.control.commands import SlurmCommands

DRAIN_REASON_PREFIX = "canhazgpu: "
"""Begins the reason of every node that canhazgpu drained, and of no other."""
SINFO_DRAIN_REASON = ("--noheader", "--Node", "--format=%N|%T|%E", "--nodes")


def own_drain_reason(text: str, node: str) -> str:
    """Return the reason for which canhazgpu drained the node, from the answer to `SINFO_DRAIN_REASON`.

    "" for a node that is in service, or that somebody else drained. The reason is last in the
    line: an administrator may have written anything into it.
    """
    for line in text.splitlines():
        name, state, reason = [*line.split("|", 2), "", ""][:3]
        if name == node and state.startswith("drain") and reason.startswith(DRAIN_REASON_PREFIX):
            return reason
    return ""


def undrain_if_ours(node: str, drains: DrainRecord, commands: SlurmCommands, *, clean: bool) -> str:
    """Put the node back into service where it is `clean`; returns why it was out, "" if it was not.

    Asks Slurm only where the node may be drained by us. Raises `SchedulerError`.
    """
    if not drains.may_be_drained():
        return ""
    reason = own_drain_reason(commands.run("sinfo", *SINFO_DRAIN_REASON, node), node)
    if not reason:
        drains.note_undrained()
        return ""
    if not clean:
        return ""
    commands.run("scontrol", "update", f"nodename={node}", "state=resume")
    drains.note_undrained()
    return reason
