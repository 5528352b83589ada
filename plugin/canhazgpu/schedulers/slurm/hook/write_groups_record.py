"""Record slurmd's control groups for the commands of ordinary users."""

from __future__ import annotations

from canhazgpu.errors import CanhazgpuError
from canhazgpu.schedulers.slurm.attribution.groups_record import record_groups
from canhazgpu.schedulers.slurm.attribution.slurmd_groups import find_slurmd_groups
from canhazgpu.schedulers.slurm.hook.node_context import NodeContext


def record_slurmd_groups(context: NodeContext) -> None:
    """Record the groups; a failure is logged, since no job must wait for it."""
    try:
        groups = find_slurmd_groups(context.conf, context.node)
        record_groups(context.state_dir, groups, context.conf)
    except (CanhazgpuError, OSError) as exc:
        context.actions.log(f"{context.node}: slurmd's control groups are not recorded: {exc}")
