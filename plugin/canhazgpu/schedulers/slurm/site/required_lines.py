"""Pure: what slurm.conf has to say for the hooks, line by line, each with its reason.

A line is asked for where it is missing or says something else, and keeps what the site has beside.
"""

from __future__ import annotations

import math
import posixpath
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from canhazgpu.config.schema import SlurmConfig
from canhazgpu.schedulers.slurm.conf.settings import Settings
from canhazgpu.schedulers.slurm.site.layout import (
    HEALTH_CHECK,
    HEALTH_KEY,
    OWN_DIR,
    Layout,
    ScriptLocation,
)

PYTHON_START_MARGIN_S = 5
"""For starting Python and reading the configuration and Slurm's files."""

ALLOC_PROLOG_FLAGS = ("alloc", "contain", "x11")
"""PrologFlags with which the prolog runs when the job is allocated: the others imply the first."""

NO_HOLD = "nohold_on_prolog_fail"
TIMEOUT_KEYS = ("PrologTimeout", "EpilogTimeout")
"""Newer releases limit each hook by itself, and what both lack by PrologEpilogTimeout."""
BOTH_TIMEOUT_KEY = "PrologEpilogTimeout"

DEFAULT_MESSAGE_TIMEOUT_S = 10

DEFAULT_BATCH_START_TIMEOUT_S = 10

HEALTH_CHECK_INTERVAL_KEY = "HealthCheckInterval"
HEALTH_CHECK_STATE_KEY = "HealthCheckNodeState"
HEALTH_CHECK_INTERVAL_S = 60
HEALTH_CHECK_COMMAND = "canhazgpu-healthcheck"
"""The program's name; it lies beside the Python that the hooks run."""
ALL_NODE_STATES = ("any", "cycle")
"""HealthCheckNodeState where it leaves no node out; the second spreads the nodes over the time."""

COMMENT_WIDTH = 100

_REASONS = {
    "Prolog": (
        "Reserves a job's GPUs and checks them; runs as root on each of its nodes. Slurm runs every"
        " file that the pattern names, from z to a; one that fails or cannot be run drains the"
        " node, and so does a pattern that names none."
    ),
    "Epilog": "Gives the GPUs back when the job's last process has ended.",
    "TaskProlog": "Names the task's GPUs by UUID; runs as the user.",
    "PrologFlags": (
        "Run the prolog when the job is allocated, not before its first step: salloc and srun wait"
        " for it."
    ),
    "MessageTimeout": (
        "A batch script's srun waits so long for a job's other nodes while their prologs still run."
    ),
    "BatchStartTimeout": (
        "A node that registers while a prolog still runs, as it does some time after a"
        " reconfiguration, is not asked for a batch script that has not begun."
    ),
    "SchedulerParameters": (
        "A batch job whose prolog failed goes back into the queue and is not held."
    ),
    "HealthCheckProgram": (
        "Publishes the GPUs' state, releases what is gone and puts back what Redis lost, on every"
        " node, on Slurm's own timer."
    ),
    "HealthCheckInterval": "In seconds; without it the program runs only when slurmd starts.",
    "HealthCheckNodeState": "All nodes, whatever they do, one after the other.",
    "GresTypes": "Slurm counts the GPUs of a node in the order of gres.conf.",
}


@dataclass(frozen=True, slots=True)
class ConfLine:
    """One line that slurm.conf needs; `instead_of` is the value it has, empty for none."""

    key: str
    value: str
    reason: str
    instead_of: str = ""

    @property
    def text(self) -> str:
        """The line itself."""
        return f"{self.key}={self.value}"


def hook_limit_s(slurm: SlurmConfig) -> int:
    """Return how long a prolog or an epilog of ours may take in all, in whole seconds.

    A refusal is decided until the hook's deadline, and carried out with Slurm's commands after it.
    """
    return math.ceil(slurm.hook_deadline_s + slurm.command_timeout_s) + PYTHON_START_MARGIN_S


def health_lines(settings: Settings, script: str) -> tuple[ConfLine, ...]:
    """Return the lines that run our health check.

    A site's own program stays: then only the timer may have something to be said.
    """
    return tuple(_health_lines(settings, script))


def _health_lines(settings: Settings, script: str) -> Iterator[ConfLine]:
    present = settings.get(HEALTH_KEY)
    if not present or posixpath.basename(present) == HEALTH_CHECK_COMMAND:
        # The command of one environment is gone with it; the script changes with the release.
        yield ConfLine(HEALTH_KEY, script, _REASONS[HEALTH_KEY], present)
    if not settings.number(HEALTH_CHECK_INTERVAL_KEY):
        yield ConfLine(
            HEALTH_CHECK_INTERVAL_KEY,
            str(HEALTH_CHECK_INTERVAL_S),
            _REASONS[HEALTH_CHECK_INTERVAL_KEY],
        )
    states = settings.words(HEALTH_CHECK_STATE_KEY)
    # Slurm's own default is any state, which a site's own program keeps.
    if not (states or present) or not set(states) <= set(ALL_NODE_STATES):
        value = settings.get(HEALTH_CHECK_STATE_KEY)
        yield ConfLine(HEALTH_CHECK_STATE_KEY, "ANY,CYCLE", _REASONS[HEALTH_CHECK_STATE_KEY], value)


def foreign_health_check(settings: Settings) -> str:
    """Return the site's own HealthCheckProgram, empty where it is ours or none."""
    present = settings.get(HEALTH_KEY)
    name = posixpath.basename(present)
    is_ours = name == HEALTH_CHECK_COMMAND or present.endswith(f"/{OWN_DIR}/{HEALTH_CHECK}")
    return "" if is_ours else present


def needed_lines(settings: Settings, layout: Layout, limit_s: int) -> tuple[ConfLine, ...]:
    """Return every line that is missing or different, in the order in which people read them."""
    found = (
        *(script_line(settings, place) for place in layout.locations),
        prolog_flags_line(settings),
        *timeout_lines(settings, limit_s),
        message_timeout_line(settings, limit_s),
        batch_start_line(settings, limit_s),
        no_hold_line(settings),
        gres_types_line(settings),
    )
    return tuple(line for line in found if line is not None)


def script_line(settings: Settings, place: ScriptLocation) -> ConfLine | None:
    """Return the line that makes Slurm run the script in this place."""
    values = settings.all(place.key)
    if place.value in (values if place.key != "TaskProlog" else values[-1:]):
        return None
    reason = _REASONS[place.key]
    if place.site:
        reason = f"{reason} Runs {place.site} as well, through {place.chain}."
    return ConfLine(place.key, place.value, reason, settings.get(place.key))


def prolog_flags_line(settings: Settings) -> ConfLine | None:
    """Return the line for PrologFlags."""
    if any(flag in ALLOC_PROLOG_FLAGS for flag in settings.words("PrologFlags")):
        return None
    return _line_with_word(settings, "PrologFlags", "Alloc")


def message_timeout_line(settings: Settings, limit_s: int) -> ConfLine | None:
    """Return the line for MessageTimeout.

    Measured on 22.05: a batch script does not wait for the prologs of the job's other nodes, and
    its srun gives up where one of them takes some times MessageTimeout; without PrologFlags=Alloc,
    and with NoHold, every srun does.
    """
    if (settings.number("MessageTimeout") or DEFAULT_MESSAGE_TIMEOUT_S) >= limit_s:
        return None
    key = "MessageTimeout"
    return ConfLine(key, str(limit_s), _REASONS[key], settings.get(key))


def batch_start_line(settings: Settings, limit_s: int) -> ConfLine | None:
    """Return the line for BatchStartTimeout.

    Measured on 22.05 with the default of 10 s: a node that registered 48 s after a batch job's
    start, in its prolog of 50 s, had the job requeued as if the node had failed.
    """
    key = "BatchStartTimeout"
    if (settings.number(key) or DEFAULT_BATCH_START_TIMEOUT_S) >= limit_s:
        return None
    return ConfLine(key, str(limit_s), _REASONS[key], settings.get(key))


def no_hold_line(settings: Settings) -> ConfLine | None:
    """Return the line for SchedulerParameters."""
    if NO_HOLD in settings.words("SchedulerParameters"):
        return None
    return _line_with_word(settings, "SchedulerParameters", NO_HOLD)


def gres_types_line(settings: Settings) -> ConfLine | None:
    """Return the line for GresTypes."""
    return (
        None
        if "gpu" in settings.words("GresTypes")
        else _line_with_word(settings, "GresTypes", "gpu")
    )


def _line_with_word(settings: Settings, key: str, word: str) -> ConfLine:
    present = settings.get(key)
    value = ",".join(part for part in (present, word) if part)
    return ConfLine(key, value, _REASONS[key], present)


def timeout_lines(settings: Settings, limit_s: int) -> Iterator[ConfLine]:
    """Give the lines for the limits that are unset, or too short for our hooks."""
    reason = (
        f"Above what canhazgpu itself takes at most ({limit_s} s, from slurm.hook_deadline_s and"
        " slurm.command_timeout_s), so that it ends by itself and says why: Slurm drains the node"
        " of a hook that it has to end."
    )
    keys = {key if settings.get(key) else BOTH_TIMEOUT_KEY for key in TIMEOUT_KEYS}
    for key in (BOTH_TIMEOUT_KEY, *TIMEOUT_KEYS):
        if key in keys and (settings.number(key) or 0) < limit_s:
            yield ConfLine(key, str(limit_s), reason, settings.get(key))


def conf_text(lines: Iterable[ConfLine]) -> str:
    """Return the lines as text for slurm.conf, the reason of each as a comment above it."""
    return "\n".join("".join(f"{one}\n" for one in _paragraph(line)) for line in lines)


def _paragraph(line: ConfLine) -> Iterator[str]:
    for part in textwrap.wrap(
        line.reason, COMMENT_WIDTH, break_long_words=False, break_on_hyphens=False
    ):
        yield f"# {part}"
    if line.instead_of:
        yield f"# Instead of: {line.key}={line.instead_of}"
    yield line.text
