"""Resume a node that canhazgpu drained, and no other."""

from __future__ import annotations

from canhazgpu.node.drain_record import DrainRecord
from canhazgpu.schedulers.slurm.control.commands import SlurmCommands
from canhazgpu.schedulers.slurm.control.queries import SINFO_DRAIN_REASON, own_drain_reason


def undrain_if_ours(node: str, drains: DrainRecord, commands: SlurmCommands, *, clean: bool) -> str:
    """Resume the node if canhazgpu drained it and it is `clean`.

    Returns the drain's reason, "" if the node was not resumed. Asks Slurm only if the node's own
    record says that canhazgpu may have drained it. Raises `SchedulerError`.
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
