"""Clocks that are wrong: each belongs to named processes, and is set by a file that they map."""

from __future__ import annotations

import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1] / "clock-step.c"
TOLERANCE_S = 2.0


def build_library(directory: Path) -> Path:
    """Compile the library that processes with such a clock load first."""
    library = directory / "clock-step.so"
    command = ["cc", "-O2", "-shared", "-fPIC", "-Wall", "-Werror", "-o", str(library), str(SOURCE)]
    subprocess.run(command, check=True, timeout=120)
    return library


class SteppedClock:
    """The time of day of the processes that were started with `environ`."""

    def __init__(self, library: Path, file: Path) -> None:
        self._file = file
        self.set(0)
        self.environ = {"LD_PRELOAD": str(library), "SOAK_CLOCK": str(file)}

    def set(self, step_s: float) -> None:
        """Let it differ by so many seconds from now on."""
        with self._file.open("r+b" if self._file.exists() else "w+b") as file:
            file.write(struct.pack("d", step_s))

    def step(self, step_s: float, ask: Callable[[], float]) -> bool:
        """Set it, and return whether the time that `ask` returns is so much off.

        Nobody is asked where it is set right.
        """
        self.set(step_s)
        return not step_s or abs(ask() - time.time() - step_s) < TOLERANCE_S
