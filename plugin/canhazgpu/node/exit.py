"""End a process that has nothing left to do."""

from __future__ import annotations

import os
import sys
from typing import NoReturn


def exit_now(status: int) -> NoReturn:
    """End this process at once: Python's own tidying up takes 15 ms."""
    for stream in (sys.stdout, sys.stderr):
        # Closed by whoever started the process: no reason to fail.
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):
            continue
    os._exit(status)
