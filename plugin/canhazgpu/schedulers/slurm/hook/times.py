"""When a hook began, and what its killed run took: by the variables that its script sets."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from canhazgpu.node.boot_clock import process_start_ticks, uptime_s
from canhazgpu.schedulers.slurm import environment as names

MAX_HOOK_AGE_S = 3600.0
"""No hook is older: Slurm's own limits are shorter."""
CLOCK_STEP_S = 0.01
"""The times of /proc are cut to hundredths: what began so much after an end began after it."""
_SECONDS = re.compile(r"[0-9]{1,12}(\.[0-9]{1,9})?", re.ASCII)
_WHOLE_SECONDS = re.compile(r"[0-9]{1,3}", re.ASCII)


def hook_began_s(environ: Mapping[str, str], asking: int) -> float:
    """Return when the hook began, its killed run included, in seconds since the node's boot.

    The hook's script says it. Where it does not, it is the start of the process that asks for the
    hook's work, less what a killed run took. The process that does the work may be older.
    """
    now = uptime_s()
    text = environ.get(names.HOOK_BEGAN_S, "")
    if _SECONDS.fullmatch(text):
        began = max(float(text), now - MAX_HOOK_AGE_S)
    else:
        ticks = process_start_ticks(asking)
        began = now if ticks is None else ticks / os.sysconf("SC_CLK_TCK")
        began -= killed_run_s(environ)
    return min(began + CLOCK_STEP_S, now)


def killed_run_s(environ: Mapping[str, str]) -> float:
    """Return how long the killed run of this hook took, in seconds; 0.0 without one."""
    text = environ.get(names.KILLED_RUN_S, "")
    return float(text) if _WHOLE_SECONDS.fullmatch(text) else 0.0
