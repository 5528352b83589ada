"""A script that does nothing for a time, as if Slurm had not run it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def silent(script: Path) -> Iterator[None]:
    """Have the script do nothing inside the block."""
    text = script.read_text()
    script.write_text("#!/bin/sh\nexit 0\n")
    try:
        yield
    finally:
        script.write_text(text)
