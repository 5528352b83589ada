"""A scheduler's jobs: their start and end on this node, and the check of the node.

`environment` holds the variables that the scheduler gives to its hook.
"""

from __future__ import annotations

from collections.abc import Mapping

from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.node.hook_caller import OWN_PROCESS, CallingProcess, HookCaller


@dataclass(frozen=True, slots=True)
class JobStart:
    """A job is about to start on this node."""

    environment: Mapping[str, str]
    caller: HookCaller = OWN_PROCESS


@dataclass(frozen=True, slots=True)
class JobEnd:
    """A job has ended on this node."""

    environment: Mapping[str, str]
    caller: HookCaller = OWN_PROCESS


@dataclass(frozen=True, slots=True)
class JobCheck:
    """A process of a job asks: it found no record of its job's GPUs.

    Which job it is in, it does not say. `environment` is the node's own: where the scheduler's
    configuration is, and the node's name.
    """

    environment: Mapping[str, str]
    process: CallingProcess
    caller: HookCaller


@dataclass(frozen=True, slots=True)
class CheckRequest:
    """The node is to be checked."""

    environment: Mapping[str, str]
    caller: HookCaller = OWN_PROCESS


@dataclass(frozen=True, slots=True)
class HookAnswer:
    """The exit status of the hook.

    It is 0 whatever happens to the job, because Slurm drains a node whose hook fails. It differs
    only if somebody runs the hook by hand, with variables that make no sense. `is_routine` is True
    where nothing failed, and nothing special was logged.
    """

    exit_status: int
    is_routine: bool = False


@dataclass(frozen=True, slots=True)
class CheckAnswer:
    """`fault` says what the check could not do, "" if it did all.

    `exit_code` is that of the fault: 4 where the store did not serve, 1 for anything else.
    `is_routine` is True where there was nothing to do, either.
    """

    exit_code: int = 0
    fault: str = ""
    is_routine: bool = False
