"""What a stopped cluster may have left running: slurmstepds, jobs, children of hooks."""

from __future__ import annotations

from demo_cluster import cgroups
from demo_cluster.host.processes import (
    Process,
    executable_name,
    process_environment,
    running_processes,
    self_and_ancestors,
    terminate_all,
    uses_directory,
)
from demo_cluster.layout import Layout

INIT = 1
DAEMONS = ("munged", "slurmctld", "slurmd", "slurmstepd")
TERMINATE_TIMEOUT_S = 2.0
MAX_ROUNDS = 3


def find_leftovers(layout: Layout) -> list[Process]:
    """Return the processes that belong to the cluster in this directory, whoever owns them.

    That is: what runs in the cluster's cgroups; what was started with its SLURM_CONF, as all jobs
    and hooks are; and Slurm's daemons and orphans that have files open in its directory. Spared are
    this process and its ancestors, and whatever sits at a terminal outside the cgroups, for that is
    somebody's shell.
    """
    spared = self_and_ancestors()
    grouped = cgroups.processes(layout)
    return [
        process
        for process in running_processes()
        if process.pid not in spared
        and (process in grouped or _belongs_to_cluster(process, layout))
    ]


def end_leftovers(layout: Layout) -> None:
    """End what belongs to the cluster, and what those start while they end."""
    for _ in range(MAX_ROUNDS):
        victims = find_leftovers(layout)
        if not victims:
            return
        terminate_all(victims, TERMINATE_TIMEOUT_S)


def _belongs_to_cluster(process: Process, layout: Layout) -> bool:
    if process.at_terminal:
        return False
    if process_environment(process.pid).get("SLURM_CONF") == str(layout.slurm_conf):
        return True
    # slurmstepd writes its title over its environment, and a job may have cleared its own.
    lost = process.parent == INIT or executable_name(process.pid) in DAEMONS
    return lost and uses_directory(process.pid, layout.root)
