"""Put a node back into service that canhazgpu drained, and no other."""

from __future__ import annotations

from canhazgpu.node.drain_record import DrainRecord
from canhazgpu.schedulers.slurm.control.commands import SlurmCommands
from canhazgpu.schedulers.slurm.control.queries import SINFO_DRAIN_REASON, own_drain_reason


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
