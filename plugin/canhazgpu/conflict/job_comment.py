"""The count of requeues in a job's comment, which belongs to the job wherever it goes; pure."""

from __future__ import annotations

import re

COMMENT_PREFIX = "canhazgpu: "
"""Begins every comment, reason and notice of ours."""

_REQUEUE_COUNT = re.compile(rf"{COMMENT_PREFIX}requeue ([0-9]{{1,6}})/")


def requeue_comment(number: int, limit: int, reason: str) -> str:
    """Return the comment of a job that is requeued for the `number`-th time."""
    return f"{COMMENT_PREFIX}requeue {number}/{limit}: {reason}"


def requeues_in_comment(comment: str, attempt: int) -> int:
    """Return how often canhazgpu requeued the job before.

    The user may write the comment: it never counts more than the scheduler's own restarts.
    """
    match = _REQUEUE_COUNT.match(comment)
    return min(int(match[1]), attempt) if match else 0
