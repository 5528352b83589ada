"""What a host needs before a private cluster can run on it."""

from __future__ import annotations

import os
import shutil

from demo_cluster.host.user_commands import SEARCH_PATH

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol")


def missing_requirements() -> tuple[str, ...]:
    """Return what is missing, in words; empty on a host that can run a cluster."""
    missing = [name for name in PROGRAMS if shutil.which(name, path=SEARCH_PATH) is None]
    if os.geteuid() != 0:
        missing.append("root")
    return tuple(missing)
