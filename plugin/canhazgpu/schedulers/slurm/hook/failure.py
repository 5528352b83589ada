"""What a hook says of its own failure."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

from canhazgpu.errors import CanhazgpuError, error_text
from canhazgpu.node.system_log import write_syslog


def log_emergency(message: str) -> None:
    """Say what must not be lost, to whoever listens."""
    print(f"canhazgpu: {message}", file=sys.stderr)  # noqa: T201 - shown if Slurm shows anything
    write_syslog(message)


def hook_error_text(error: Exception) -> str:
    """Return a fault as one sentence with the next step; an unforeseen one with its place."""
    if isinstance(error, CanhazgpuError):
        return error_text(error)
    frame = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(frame.filename).name}:{frame.lineno}"
    return f"internal error at {where}: {type(error).__name__}: {error} (please report this)"
