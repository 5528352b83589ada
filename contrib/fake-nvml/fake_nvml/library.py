"""The fake library and the programs beside it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
PROGRAMS = ("gpu-process", "nvidia-smi")


def build(out_dir: str | Path, *, old: bool = False) -> Path:
    """Compile the library into a directory and return its absolute path.

    `old` leaves out the calls that an old driver lacks. Raises CalledProcessError with make's
    output when it does not compile.
    """
    out = Path(out_dir).resolve()
    variant = ["OLD=1"] if old else []
    subprocess.run(
        ["make", "-s", "-C", str(HERE), f"OUT={out}", *variant],  # noqa: S607 - from PATH
        check=True,
        capture_output=True,
        text=True,
    )
    return out / "libnvidia-ml.so.1"


def install(out_dir: str | Path, *, old: bool = False) -> Path:
    """Build the library and put the two programs beside it, usable by every user who gets there."""
    library = build(out_dir, old=old)
    for program in PROGRAMS:
        target = library.parent / program
        shutil.copyfile(HERE / program, target)
        target.chmod(0o755)
    return library
