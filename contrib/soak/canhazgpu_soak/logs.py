"""Logs and records of a soak: what they show, and copies for whoever looks for a cause."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from canhazgpu_soak.cluster import SoakCluster, now
from canhazgpu_soak.evidence import Finding
from canhazgpu_soak.report import LOG_TRACEBACK

TRACEBACK = "Traceback (most recent call last)"


def log_tracebacks(cluster: SoakCluster) -> list[Finding]:
    """Return a finding for each traceback in a log of slurmd, slurmctld or an agent."""
    logs = sorted(cluster.slurm.layout.logs.iterdir())
    found = [(path.name, path.read_text(errors="replace").count(TRACEBACK)) for path in logs]
    return [Finding(LOG_TRACEBACK, now(), name) for name, count in found for _ in range(count)]


def keep_files(cluster: SoakCluster, directory: Path) -> None:
    """Copy the files of the cluster that tell what happened."""
    directory.mkdir(parents=True, exist_ok=True)
    for name in ("notes", "commands", "slurm/log", "run"):
        if (cluster.root / name).exists():
            with contextlib.suppress(shutil.Error):  # sockets cannot be copied
                copy = directory / Path(name).name
                shutil.copytree(cluster.root / name, copy, dirs_exist_ok=True)
    for name in ("hooks", "looks"):
        (directory / name).write_text("\n".join(cluster.lines(name)))
