"""A scheduler's jobs: their start and end on this node, and the check of the node.

`environment` has the variables that the scheduler gives its hook.
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
    """What the hook ends with.

    `exit_status` is 0 for whatever happens to the job: Slurm drains a node whose hook fails. It
    differs only where somebody ran the hook by hand with variables that make no sense.
    """

    exit_status: int


class CheckAnswer(NamedTuple):
    """Whether all of the check worked."""

    worked: bool
