"""Every error a caller can meet, what the process exits with, and what the user does next.

Adapters translate foreign errors into one of these with ``raise … from exc``; commands and hooks
catch `CanhazgpuError` alone and look its advice up in `ADVICE`.
"""

from __future__ import annotations

from dataclasses import dataclass


class CanhazgpuError(Exception):
    """Something canhazgpu cannot go on from; its text is one line for the user."""


class ConfigError(CanhazgpuError):
    """A configuration file, variable or flag is unreadable, unknown or malformed."""


class InputError(CanhazgpuError):
    """A value given by a user or by the scheduler is malformed."""


class ScanError(CanhazgpuError):
    """The GPUs of this node could not be read."""


class StoreError(CanhazgpuError):
    """The ledger's Redis cannot be reached or answered with an error."""


class SchedulerError(CanhazgpuError):
    """A command of the scheduler failed or took too long."""


class NodeStateError(CanhazgpuError):
    """The node's own records cannot be read or written."""


class UnavailableError(CanhazgpuError):
    """The GPUs asked for are not to be had now, or within the time given."""


class CommandError(CanhazgpuError):
    """A command to run is not there, or may not be executed."""

    def __init__(self, text: str, exit_code: int) -> None:
        """Take the status that shells give such a command, 127 or 126."""
        super().__init__(text)
        self.exit_code = exit_code


class DeadlineError(CanhazgpuError):
    """A hook took longer than it may."""


@dataclass(frozen=True, slots=True)
class Advice:
    """What follows an error: the process's exit status and the user's next step."""

    exit_code: int
    next_step: str


DEFAULT_ADVICE = Advice(1, "")

ADVICE: dict[type[CanhazgpuError], Advice] = {
    ConfigError: Advice(2, "run 'canhazgpu config show' to see every key and where it comes from"),
    InputError: Advice(2, ""),
    ScanError: Advice(3, "check the driver with 'nvidia-smi' and validation.nvml_library"),
    StoreError: Advice(4, "check store.url and that the server answers: 'redis-cli ping'"),
    SchedulerError: Advice(5, "check that the scheduler's commands work as root on this node"),
    DeadlineError: Advice(
        7, "find what is slow: 'canhazgpu status', 'redis-cli ping', 'nvidia-smi'"
    ),
    # Other statuses are the command's own; this one is sysexits' "try again later".
    UnavailableError: Advice(75, ""),
    NodeStateError: Advice(6, "check owner, mode and free space of node.state_dir"),
}


def advice_for(error: CanhazgpuError) -> Advice:
    """Return the advice of the error's class, or of the nearest base that has one."""
    for kind in type(error).__mro__:
        if kind in ADVICE:
            return ADVICE[kind]
    return DEFAULT_ADVICE


def error_text(error: CanhazgpuError) -> str:
    """Return the error as one line, with the next step where there is one."""
    text = " ".join(str(error).split())
    step = advice_for(error).next_step
    return f"{text} ({step})" if step else text
