"""The count of requeues in a job's comment, which belongs to the job wherever it goes; pure."""

from __future__ import annotations

import re

PREFIX = "canhazgpu: "
"""Begins every comment, reason and notice of ours."""

_COUNT = re.compile(rf"{PREFIX}requeue ([0-9]{{1,6}})/")


def requeue_note(number: int, limit: int, reason: str) -> str:
    """Return the comment of a job that is requeued for the `number`-th time."""
    return f"{PREFIX}requeue {number}/{limit}: {reason}"


def requeues_noted(comment: str, attempt: int) -> int:
    """Return how often canhazgpu requeued the job before.

    The user may write the comment: it never counts more than the scheduler's own restarts.
    """
    match = _COUNT.match(comment)
    return min(int(match[1]), attempt) if match else 0
