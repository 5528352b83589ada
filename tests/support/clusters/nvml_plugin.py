"""Slurm's plugin that finds GPUs by NVML: Debian's, unpacked once in a test run."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from run_files import made_once

FETCH = Path(__file__).parents[3] / "contrib" / "dev" / "fetch-nvml-plugin"


def plugin_directories() -> str:
    """Return the value of PluginDir with which slurmd finds the plugin; skips without it."""
    if os.geteuid() != 0 or not shutil.which("dpkg-query"):
        pytest.skip("root on Debian can unpack Debian's NVML plugin, nobody else")
    (found,) = made_once("nvml-plugin", _fetch).glob("**/gpu_nvml.so")
    (usual,) = Path("/usr/lib").glob("*/slurm-wlm")
    return f"{usual}:{found.parent}"


def _fetch(directory: Path) -> None:
    done = subprocess.run(
        [FETCH, directory], capture_output=True, text=True, timeout=120, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"Debian's NVML plugin is not to be had: {done.stderr.strip()[-200:]}")


def name_library_for_plugin(directory: Path) -> None:
    """Give the simulated driver the name by which the plugin loads it, and one node for slurmd."""
    (directory / "libnvidia-ml.so").symlink_to("libnvidia-ml.so.1")
    (directory / "state" / "default-node").write_text("n1\n")
