"""What files a process has open; it may close some, or end, while this is read."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def open_files(pid: int) -> list[str]:
    """Return what its descriptors name, as `readlink` does; none of a process that has ended."""
    found = []
    with contextlib.suppress(OSError):
        for one in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                found.append(os.readlink(one))  # noqa: PTH115
    return found
