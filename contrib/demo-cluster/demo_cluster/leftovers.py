"""What a stopped cluster may have left running: shepherds, jobs, children of hooks."""

from __future__ import annotations

from demo_cluster import cgroups
from demo_cluster.layout import Layout
from demo_cluster.processes import Process, end, environment, own_line, running, works_below

PATIENCE_S = 5.0


def find_leftovers(layout: Layout) -> list[Process]:
    """Return the processes that belong to the cluster in this directory, whoever owns them.

    A process belongs to it when it was started with the cluster's SLURM_CONF, has its working
    directory or an open file in the cluster's directory, or is in one of the cluster's cgroups.
    This process and its ancestors do not.
    """
    spared = own_line()
    grouped = cgroups.processes(layout)
    return [
        process
        for process in running()
        if process.pid not in spared and (process in grouped or _belongs(process, layout))
    ]


def end_leftovers(layout: Layout) -> None:
    """End what belongs to the cluster, and what appears meanwhile."""
    for _ in range(3):
        victims = find_leftovers(layout)
        if not victims:
            return
        end(victims, PATIENCE_S)


def _belongs(process: Process, layout: Layout) -> bool:
    named = environment(process.pid).get("SLURM_CONF") == str(layout.slurm_conf)
    return named or works_below(process.pid, layout.root)
