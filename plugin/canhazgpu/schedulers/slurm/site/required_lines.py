"""The lines that slurm.conf needs for the hooks, each with its reason; pure.

A line is required if it is missing or has another value. It keeps the site's other values.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from canhazgpu.config.schema import SlurmConfig
from canhazgpu.schedulers.slurm.conf.settings import Settings
from canhazgpu.schedulers.slurm.site.layout import (
    Layout,
    ScriptLocation,
)

PYTHON_START_MARGIN_S = 5
"""Time to start Python and to read the configuration and Slurm's files."""

ALLOC_PROLOG_FLAGS = ("alloc", "contain", "x11", "runinjob", "forcerequeueonfail")
"""PrologFlags with which the prolog runs at the job's allocation; the others imply ``alloc``."""

DEFER_BATCH = "deferbatch"
RUN_IN_JOB = "runinjob"

NO_HOLD = "nohold_on_prolog_fail"
TIMEOUT_KEYS = ("PrologTimeout", "EpilogTimeout")
"""The limit of each hook in newer releases; PrologEpilogTimeout is the default of both."""
BOTH_TIMEOUT_KEY = "PrologEpilogTimeout"

DEFAULT_MESSAGE_TIMEOUT_S = 10

UNKILLABLE_MESSAGE_TIMEOUTS = 5
"""Slurm wants UnkillableStepTimeout to be so many MessageTimeouts at least; its default is."""

DEFAULT_BATCH_START_TIMEOUT_S = 10


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
    "DeferBatch": (
        "A job's batch script starts when the prologs of all its nodes are done: one of them may"
        " send the job back."
    ),
    "RunInJob": "Without RunInJob hooks see all GPUs of the node, and not the job's alone.",
    "MessageTimeout": (
        "A batch script's srun waits so long for a job's other nodes while their prologs still run."
    ),
    "UnkillableStepTimeout": (
        f"At least {UNKILLABLE_MESSAGE_TIMEOUTS} times MessageTimeout, else Slurm may drain a node"
        " while the end of a step is only reported late. Without the line it is."
    ),
    "BatchStartTimeout": (
        "A node that registers while a prolog still runs, as it does some time after a"
        " reconfiguration, is not asked for a batch script that has not begun."
    ),
    "SchedulerParameters": (
        "A batch job whose prolog failed goes back into the queue and is not held."
    ),
    "GresTypes": "Slurm counts the GPUs of a node in the order of gres.conf.",
}


@dataclass(frozen=True, slots=True)
class ConfLine:
    """One line that slurm.conf needs; `instead_of` is the present value, empty for none."""

    key: str
    value: str
    reason: str
    instead_of: str = ""

    @property
    def text(self) -> str:
        """The line itself."""
        return f"{self.key}={self.value}"


def hook_limit_s(slurm: SlurmConfig) -> int:
    """Return the longest time of a prolog or an epilog of canhazgpu, in whole seconds.

    A decision can take until the hook's deadline. Slurm's commands for it run afterwards.
    """
    return math.ceil(slurm.hook_deadline_s + slurm.command_timeout_s) + PYTHON_START_MARGIN_S


def needed_lines(
    settings: Settings, layout: Layout, limit_s: int, *, multi_node_jobs: bool = False
) -> tuple[ConfLine, ...]:
    """Return every line that is missing or different, in the order for readers.

    With `multi_node_jobs`, jobs can have several nodes.
    """
    found = (
        *(script_line(settings, location) for location in layout.locations),
        prolog_flags_line(settings, multi_node_jobs=multi_node_jobs),
        *timeout_lines(settings, limit_s),
        message_timeout_line(settings, limit_s),
        unkillable_step_line(settings, limit_s),
        batch_start_line(settings, limit_s),
        no_hold_line(settings),
        gres_types_line(settings),
    )
    return tuple(line for line in found if line is not None)


def script_line(settings: Settings, location: ScriptLocation) -> ConfLine | None:
    """Return the line that makes Slurm run the script at this location."""
    values = settings.all(location.key)
    if location.value in (values if location.key != "TaskProlog" else values[-1:]):
        return None
    reason = _REASONS[location.key]
    if location.site:
        reason = f"{reason} Runs {location.site} as well, through {location.chain}."
    return ConfLine(location.key, location.value, reason, settings.get(location.key))


def prolog_flags_line(settings: Settings, *, multi_node_jobs: bool) -> ConfLine | None:
    """Return the one line for PrologFlags: with every flag that is needed, without RunInJob."""
    key = "PrologFlags"
    present = [word.strip() for word in settings.get(key).split(",") if word.strip()]
    flags = [word for word in present if word.lower() != RUN_IN_JOB]
    reasons = [_REASONS["RunInJob"]] if len(flags) < len(present) else []
    if not runs_at_allocation(flags):
        flags.append("Alloc")
        reasons.append(_REASONS[key])
    if multi_node_jobs and not defers_batch(flags):
        flags.append("DeferBatch")
        reasons.append(_REASONS["DeferBatch"])
    if not reasons:
        return None
    return ConfLine(key, ",".join(flags), " ".join(reasons), settings.get(key))


def runs_at_allocation(flags: Iterable[str]) -> bool:
    """Tell whether the prolog runs at the job's allocation with these PrologFlags."""
    return any(flag.lower() in ALLOC_PROLOG_FLAGS for flag in flags)


def defers_batch(flags: Iterable[str]) -> bool:
    """Tell whether a batch script waits for the prologs of all its nodes.

    Measured on 22.05, 24.11 and 26.05: without DeferBatch, a batch script runs on the job's first
    node before another node's prolog has sent the job back.
    """
    return any(flag.lower() == DEFER_BATCH for flag in flags)


def message_timeout_line(settings: Settings, limit_s: int) -> ConfLine | None:
    """Return the line for MessageTimeout.

    Measured on 22.05: A batch script does not wait for the prologs of the job's other nodes. Its
    srun fails if one of them takes several times MessageTimeout. Without PrologFlags=Alloc, or
    with NoHold, every srun does.
    """
    if (settings.number("MessageTimeout") or DEFAULT_MESSAGE_TIMEOUT_S) >= limit_s:
        return None
    key = "MessageTimeout"
    return ConfLine(key, str(limit_s), _REASONS[key], settings.get(key))


def unkillable_step_line(settings: Settings, limit_s: int) -> ConfLine | None:
    """Return the line for UnkillableStepTimeout, None where it is not set.

    It counts for the MessageTimeout that the hooks need. Measured on 26.05 with 60 s for both:
    slurmctld logs an error.
    """
    key = "UnkillableStepTimeout"
    present = settings.number(key)
    message_timeout_s = max(settings.number("MessageTimeout") or DEFAULT_MESSAGE_TIMEOUT_S, limit_s)
    needed_s = UNKILLABLE_MESSAGE_TIMEOUTS * message_timeout_s
    if present is None or present >= needed_s:
        return None
    return ConfLine(key, str(needed_s), _REASONS[key], settings.get(key))


def batch_start_line(settings: Settings, limit_s: int) -> ConfLine | None:
    """Return the line for BatchStartTimeout.

    Measured on 22.05 with the default of 10 s: A node registered 48 s after a batch job's start,
    during a prolog of 50 s. Slurm requeued the job as after a node failure.
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
    """Give the lines for the timeouts that are unset, or too short for canhazgpu's hooks."""
    reason = (
        f"Above what canhazgpu itself takes at most ({limit_s} s, from slurm.hook_deadline_s and"
        " slurm.command_timeout_s), so that it ends by itself and says why: Slurm drains the node"
        " of a hook that it has to end."
    )
    keys = {key if settings.get(key) else BOTH_TIMEOUT_KEY for key in TIMEOUT_KEYS}
    for key in (BOTH_TIMEOUT_KEY, *TIMEOUT_KEYS):
        if key in keys and (settings.number(key) or 0) < limit_s:
            yield ConfLine(key, str(limit_s), reason, settings.get(key))
