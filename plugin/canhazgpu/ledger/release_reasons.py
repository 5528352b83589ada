"""Reasons of releases, and which of them say that the owner never used the GPUs; pure.

The release of an unused GPU leaves no trace in the GPU's release time, and none in its last user:
the order of grants, "free for" and affinity tell of use. It counts no GPU hours either.
"""

from __future__ import annotations

IN_USE_AT_SECOND_LOOK = "in use at the second look"
HELD_BY_NODES_BOOK = "the node's book has another owner"
ANOTHER_JOB_RUNS = "another job runs on it"
GAVE_UP = "gave up"
"""An error or a signal came between the grant and its use."""
NOT_COMMITTED = "the grant was not completed"
"""The node opened the grant and did not commit it."""
EXPIRED = "expired"
"""A timed reservation came to its end; ``scripts/shared/reservations.lua`` has the same word."""
COMMAND_NOT_STARTED = "its command did not start"

OTHER_GPUS_GIVEN = "the node gave it other GPUs"
"""The store had granted a GPU that the node did not; ``scripts/shared/entries.lua`` says so."""
OVERRULED = "a job that runs on the node has it"
"""The store had granted the GPU to somebody else; ``scripts/shared/entries.lua`` says so."""

_UNUSED = frozenset(
    {
        IN_USE_AT_SECOND_LOOK,
        HELD_BY_NODES_BOOK,
        ANOTHER_JOB_RUNS,
        GAVE_UP,
        NOT_COMMITTED,
        COMMAND_NOT_STARTED,
        OTHER_GPUS_GIVEN,
    }
)


def was_unused(reason: str, by: str) -> bool:
    """Tell whether the owner itself gave the GPUs back unused; `by` names who else released them.

    An administrator may give any reason.
    """
    return not by and reason in _UNUSED
