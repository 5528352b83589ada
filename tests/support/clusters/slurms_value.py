"""A cluster whose tasks tell what Slurm wrote, before canhazgpu's task prolog changes it."""

from __future__ import annotations

from clusters.gpu_cluster import GpuCluster
from clusters.nvml_plugin import name_library_for_plugin

MARK = "SLURM="


class NvmlCluster(GpuCluster):
    """Its slurmd finds the simulated driver by Debian's NVML plugin.

    Each task's output begins with Slurm's own CUDA_VISIBLE_DEVICES.
    """

    def _install_hooks(self) -> dict[str, str]:
        name_library_for_plugin(self.root / "nvml")
        hooks = super()._install_hooks()
        path = self.root / "task_prolog.sh"
        path.write_text(
            f"#!/bin/sh\necho print {MARK}$CUDA_VISIBLE_DEVICES\nexec {hooks['task_prolog']}\n"
        )
        path.chmod(0o755)
        return {**hooks, "task_prolog": str(path)}


def slurms_value(output: str) -> str:
    """Return what Slurm wrote for the first task whose output this is."""
    return next(line.removeprefix(MARK) for line in output.splitlines() if line.startswith(MARK))
