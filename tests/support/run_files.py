"""What all workers of a test run share: made once, by whichever of them needs it first."""

from __future__ import annotations

import atexit
import fcntl
import functools
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

VARIABLE = "CANHAZ_TEST_RUN"
"""Names the run's directory. Not CANHAZGPU_…: the configuration refuses what it does not know."""


@functools.cache
def run_directory() -> Path:
    """Return the directory of this run, which every user may enter.

    The process that asks first makes it and removes it at its end; its workers inherit the name.
    """
    if VARIABLE not in os.environ:
        directory = tempfile.mkdtemp(prefix="canhaz-tests-")
        Path(directory).chmod(0o755)
        os.environ[VARIABLE] = directory
        atexit.register(_remove, directory, os.getpid())
    return Path(os.environ[VARIABLE])


def made_once(name: str, make: Callable[[Path], object]) -> Path:
    """Return the run's directory of that name, filled by `make`; other workers wait for it."""
    directory = run_directory() / name
    done = run_directory() / f"{name}.done"
    with (run_directory() / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir(mode=0o755)
            make(directory)
            done.touch()
    return directory


def _remove(directory: str, pid: int) -> None:
    # Not in a child that a test forked and that ends as Python programs do.
    if os.getpid() == pid:
        shutil.rmtree(directory, ignore_errors=True)
