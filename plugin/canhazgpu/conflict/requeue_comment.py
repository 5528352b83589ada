"""The number of requeues, stored in the job's comment, which a requeue keeps; pure."""

from __future__ import annotations

import re

COMMENT_PREFIX = "canhazgpu: "
"""The beginning of every comment, reason and notice by canhazgpu."""

_REQUEUE_COUNT = re.compile(rf"{COMMENT_PREFIX}requeue ([0-9]{{1,6}})/")


def requeue_comment(number: int, limit: int, reason: str) -> str:
    """Return the comment of a job that is requeued for the `number`-th time."""
    return f"{COMMENT_PREFIX}requeue {number}/{limit}: {reason}"


def requeues_in_comment(comment: str, attempt: int) -> int:
    """Return how often canhazgpu requeued the job before.

    The user can change the comment, so the result is at most the scheduler's number of restarts.
    """
    match = _REQUEUE_COUNT.match(comment)
    return min(int(match[1]), attempt) if match else 0
