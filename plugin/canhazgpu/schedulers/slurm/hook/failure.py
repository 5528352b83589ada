"""Report a hook's own failure."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

from canhazgpu.errors import CanhazgpuError, error_text
from canhazgpu.node.system_log import write_syslog


def log_emergency(message: str) -> None:
    """Write a message to standard error and to syslog, without any part of the hook."""
    print(f"canhazgpu: {message}", file=sys.stderr)  # noqa: T201 - shown if Slurm shows anything
    write_syslog(message)


def hook_error_text(error: Exception) -> str:
    """Return an error as one sentence with the next step; an unexpected one with file and line."""
    if isinstance(error, CanhazgpuError):
        return error_text(error)
    frame = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(frame.filename).name}:{frame.lineno}"
    return f"internal error at {where}: {type(error).__name__}: {error} (please report this)"
