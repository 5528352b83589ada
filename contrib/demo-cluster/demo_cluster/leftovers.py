"""What a stopped cluster may have left running: shepherds, jobs, children of hooks."""

from __future__ import annotations

from demo_cluster import cgroups
from demo_cluster.layout import Layout
from demo_cluster.processes import (
    Process,
    end,
    environment,
    executable,
    own_line,
    running,
    works_below,
)

INIT = 1
DAEMONS = ("munged", "slurmctld", "slurmd", "slurmstepd")
PATIENCE_S = 2.0
ROUNDS = 3


def find_leftovers(layout: Layout) -> list[Process]:
    """Return the processes that belong to the cluster in this directory, whoever owns them.

    That is: what runs in the cluster's cgroups; what was started with its SLURM_CONF, as all jobs
    and hooks are; and Slurm's daemons and orphans that have files open in its directory. Spared are
    this process and its ancestors, and whatever sits at a terminal outside the cgroups, for that is
    somebody's shell.
    """
    spared = own_line()
    grouped = cgroups.processes(layout)
    return [
        process
        for process in running()
        if process.pid not in spared and (process in grouped or _belongs(process, layout))
    ]


def end_leftovers(layout: Layout) -> None:
    """End what belongs to the cluster, and what those start while they end."""
    for _ in range(ROUNDS):
        victims = find_leftovers(layout)
        if not victims:
            return
        end(victims, PATIENCE_S)


def _belongs(process: Process, layout: Layout) -> bool:
    if process.at_terminal:
        return False
    if environment(process.pid).get("SLURM_CONF") == str(layout.slurm_conf):
        return True
    # slurmstepd writes its title over its environment, and a job may have cleared its own.
    lost = process.parent == INIT or executable(process.pid) in DAEMONS
    return lost and works_below(process.pid, layout.root)
