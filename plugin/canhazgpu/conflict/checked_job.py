"""What became of a job that runs, and was checked only then; pure."""

from __future__ import annotations

from enum import IntEnum

from canhazgpu.frozen_dataclass import dataclass


class CheckedState(IntEnum):
    """Whether the job's code may run; the numbers are those of the agent's interface."""

    CHECKED = 0
    """Its GPUs are on record."""
    LEFT = 1
    """It has no GPU here, or a policy lets it run without any of canhazgpu's."""
    SENT_BACK = 2
    """It does not run any more: it was requeued or cancelled, or has ended."""
    REFUSED = 3
    """Who asks may not, or the check could not be made: nobody checked its GPUs."""


@dataclass(frozen=True, slots=True)
class CheckedJob:
    """What became of the job; `message` is one line for its user, "" for none."""

    state: CheckedState
    message: str = ""
