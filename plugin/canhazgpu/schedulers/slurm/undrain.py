"""Put a node back into service that canhazgpu drained, and no other."""

from __future__ import annotations

from canhazgpu.node.drains import Drains
from canhazgpu.schedulers.slurm.commands import SlurmCommands

PREFIX = "canhazgpu: "
"""Begins the reason of every node that canhazgpu drained, and of no other."""
SINFO = ("--noheader", "--Node", "--format=%N|%T|%E", "--nodes")


def our_drain(text: str, node: str) -> str:
    """Return the reason for which canhazgpu drained the node, from the answer to `SINFO`.

    "" for a node that is in service, or that somebody else drained. The reason is last in the
    line: an administrator may have written anything into it.
    """
    for line in text.splitlines():
        name, state, reason = [*line.split("|", 2), "", ""][:3]
        if name == node and state.startswith("drain") and reason.startswith(PREFIX):
            return reason
    return ""


def undrain(node: str, drains: Drains, commands: SlurmCommands, *, clean: bool) -> str:
    """Put the node back into service where it is `clean`; returns why it was out, "" if it was not.

    Asks Slurm only where the node may be drained by us. Raises `SchedulerError`.
    """
    if not drains.may_be():
        return ""
    reason = our_drain(commands.run("sinfo", *SINFO, node), node)
    if not reason:
        drains.ended()
        return ""
    if not clean:
        return ""
    commands.run("scontrol", "update", f"nodename={node}", "state=resume")
    drains.ended()
    return reason
