"""A scheduler's jobs: their start and end on this node, and the check of the node.

`environment` holds the variables that the scheduler gives to its hook.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class JobStart(NamedTuple):
    """A job is about to start on this node."""

    environment: Mapping[str, str]


class JobEnd(NamedTuple):
    """A job has ended on this node."""

    environment: Mapping[str, str]


class CheckRequest(NamedTuple):
    """The node is to be checked."""

    environment: Mapping[str, str]


class HookAnswer(NamedTuple):
    """The exit status of the hook.

    It is 0 whatever happens to the job, because Slurm drains a node whose hook fails. It differs
    only if somebody runs the hook by hand, with variables that make no sense.
    """

    exit_status: int


class CheckAnswer(NamedTuple):
    """`worked` is True if every part of the check worked."""

    worked: bool
