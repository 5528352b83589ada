"""The simulated driver, compiled once in a test run."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

from run_files import made_once

import fake_nvml


def install_driver(directory: Path, *, old: bool = False) -> Path:
    """Put library and programs into a directory, as `fake_nvml.install` does; returns the library.

    Beside them goes the state of their GPUs, so that each user of the driver has a copy.
    """
    compiled = made_once("old-driver" if old else "driver", partial(fake_nvml.install, old=old))
    shutil.copytree(compiled, directory, dirs_exist_ok=True)
    return directory / "libnvidia-ml.so.1"
