"""The lines of slurm.conf that make Slurm run the health check; pure."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from canhazgpu.schedulers.slurm.conf.settings import Settings
from canhazgpu.schedulers.slurm.site.layout import HEALTH_CHECK, HEALTH_KEY, OWN_DIR
from canhazgpu.schedulers.slurm.site.required_lines import ConfLine

HEALTH_CHECK_INTERVAL_KEY = "HealthCheckInterval"
HEALTH_CHECK_STATE_KEY = "HealthCheckNodeState"
HEALTH_CHECK_INTERVAL_S = 60
HEALTH_CHECK_COMMAND = "canhazgpu-healthcheck"
"""The program's name; it is in the directory of the Python that the hooks run."""
HEALTH_CHECK_TIMEOUT_KEY = "HealthCheckTimeout"
LONGEST_CHECK_S = 40
"""How long a health check may take: its own limit, the history, and the start of Python."""
RARE_STATES = ("start_only", "reboot_only")
"""States of HealthCheckNodeState, from 25.11 on, with which no interval counts."""
ALL_NODE_STATES = ("any", "cycle")
"""Words of HealthCheckNodeState that exclude no node; ``cycle`` spreads the checks in time."""

_REASONS = {
    "HealthCheckProgram": (
        "Publishes the GPUs' state, releases what is gone and puts back what Redis lost, on every"
        " node, on Slurm's own timer."
    ),
    "HealthCheckInterval": "In seconds; without it the program runs only when slurmd starts.",
    "HealthCheckNodeState": "All nodes, whatever they do, one after the other.",
    "HealthCheckTimeout": "In seconds: what a health check of canhazgpu may take.",
}


def health_lines(settings: Settings, script: str) -> tuple[ConfLine, ...]:
    """Return the lines that make Slurm run canhazgpu's health check.

    A site's own HealthCheckProgram stays; then only the interval may need a line.
    """
    return tuple(_health_lines(settings, script))


def _health_lines(settings: Settings, script: str) -> Iterator[ConfLine]:
    present = settings.get(HEALTH_KEY)
    if not present or posixpath.basename(present) == HEALTH_CHECK_COMMAND:
        # The command disappears with its environment; the script is installed with each release.
        yield ConfLine(HEALTH_KEY, script, _REASONS[HEALTH_KEY], present)
    if not settings.number(HEALTH_CHECK_INTERVAL_KEY):
        yield ConfLine(
            HEALTH_CHECK_INTERVAL_KEY,
            str(HEALTH_CHECK_INTERVAL_S),
            _REASONS[HEALTH_CHECK_INTERVAL_KEY],
        )
    states = settings.words(HEALTH_CHECK_STATE_KEY)
    # Slurm's default is any state; a site's own program keeps it.
    if not (states or present) or not set(states) <= set(ALL_NODE_STATES):
        value = settings.get(HEALTH_CHECK_STATE_KEY)
        reason = _REASONS[HEALTH_CHECK_STATE_KEY]
        if set(states) & set(RARE_STATES):
            reason = f"With {value} it runs when slurmd starts, and not again. {reason}"
        yield ConfLine(HEALTH_CHECK_STATE_KEY, "ANY,CYCLE", reason, value)
    if 0 < (settings.number(HEALTH_CHECK_TIMEOUT_KEY) or 0) < LONGEST_CHECK_S:
        yield ConfLine(
            HEALTH_CHECK_TIMEOUT_KEY,
            str(LONGEST_CHECK_S),
            _REASONS[HEALTH_CHECK_TIMEOUT_KEY],
            settings.get(HEALTH_CHECK_TIMEOUT_KEY),
        )


def foreign_health_check(settings: Settings) -> str:
    """Return the site's own HealthCheckProgram, empty if it is canhazgpu's or none."""
    present = settings.get(HEALTH_KEY)
    name = posixpath.basename(present)
    is_ours = name == HEALTH_CHECK_COMMAND or present.endswith(f"/{OWN_DIR}/{HEALTH_CHECK}")
    return "" if is_ours else present
