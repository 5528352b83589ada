"""All errors of canhazgpu, their exit statuses, and the user's next step.

Adapters translate foreign errors into one of these with ``raise … from exc``. Commands and hooks
catch only `CanhazgpuError`, and take its advice from `ADVICE`. Every start of a run imports this
module, so it imports nothing.
"""

from __future__ import annotations


class CanhazgpuError(Exception):
    """The base of all errors; the text is one line for the user.

    `next_step` replaces the advice for the error's class, "" where the text has it already.
    """

    def __init__(self, *args: object, next_step: str | None = None) -> None:
        super().__init__(*args)
        self.next_step = next_step


class ConfigError(CanhazgpuError):
    """A configuration file, variable or option is unreadable, unknown or malformed."""


class ForeignNodeError(ConfigError):
    """The store has this node's name as that of another machine, in another cluster."""


class InputError(CanhazgpuError):
    """A value given by a user or by the scheduler is malformed."""


class UnknownNameError(InputError):
    """A name that could be one, and that nothing here has.

    `kind` says of what: ``node``, ``partition`` or ``user``. `known` are names of this kind that
    there are, sorted; of very many the first ones.
    """

    MAX_KNOWN = 20

    def __init__(
        self,
        *args: object,
        kind: str = "",
        known: list[str] | set[str] | tuple[str, ...] = (),
        next_step: str | None = None,
    ) -> None:
        super().__init__(*args, next_step=next_step)
        self.kind = kind
        self.known = tuple(sorted(known)[: self.MAX_KNOWN])


class ScanError(CanhazgpuError):
    """The GPUs of this node could not be read."""


class StoreError(CanhazgpuError):
    """The store cannot be reached, or it answered with an error."""


class SchedulerError(CanhazgpuError):
    """A command of the scheduler failed or took too long."""


class NodeStateError(CanhazgpuError):
    """The node's own records cannot be read or written."""


class BookUnknownError(NodeStateError):
    """The node's book is lost: it is not known who holds the node's GPUs."""


class VoidGrantError(CanhazgpuError):
    """The grant does not stand, and nothing more is to be done for it.

    Its attempt has ended, or whoever asked for it is gone.
    """


class AgentError(CanhazgpuError):
    """The node's agent does not run, or does not answer as one."""


class UnavailableError(CanhazgpuError):
    """The requested GPUs are not available, or not within the given time."""


class OrderInterruptedError(CanhazgpuError):
    """Somebody who had given another node an order waits for it no longer."""


class LimitError(UnavailableError):
    """The site allows a user no more than the user has; nothing was granted or queued."""


class CommandError(CanhazgpuError):
    """The command to run does not exist, or may not be executed."""

    def __init__(self, text: str, exit_code: int) -> None:
        """Take the exit status that shells use: 127 (not found) or 126 (not executable)."""
        super().__init__(text)
        self.exit_code = exit_code


class DeadlineError(CanhazgpuError):
    """A hook exceeded its time limit."""


class Advice:
    """The process's exit status and the user's next step for an error."""

    __slots__ = ("exit_code", "next_step")

    def __init__(self, exit_code: int, next_step: str) -> None:
        self.exit_code = exit_code
        self.next_step = next_step


DEFAULT_ADVICE = Advice(1, "")

ADVICE: dict[type[CanhazgpuError], Advice] = {
    ConfigError: Advice(2, ""),
    InputError: Advice(2, ""),
    ScanError: Advice(3, "check the driver with 'nvidia-smi' and validation.nvml_library"),
    StoreError: Advice(4, "check store.url, and that its server answers"),
    SchedulerError: Advice(5, "check that the scheduler's commands work as root on this node"),
    DeadlineError: Advice(7, "find what is slow: 'canhazgpu hooks check', 'nvidia-smi'"),
    # EX_TEMPFAIL of sysexits.h: statuses of a command that was run stay distinct from it.
    UnavailableError: Advice(75, ""),
    # As shells name a process that SIGINT has ended.
    OrderInterruptedError: Advice(130, ""),
    AgentError: Advice(8, "'canhazgpu agent run' as root is the agent; hooks work without one"),
    BookUnknownError: Advice(
        6, "'canhazgpu-healthcheck', run by root, makes it anew once store and scheduler answer"
    ),
    NodeStateError: Advice(6, "check owner, mode and free space of node.state_dir"),
}


def advice_for(error: CanhazgpuError) -> Advice:
    """Return the advice for the error's class, or for its nearest base class with one.

    The error's own next step, if it has one, is in place of that of the class.
    """
    found = next((ADVICE[kind] for kind in type(error).__mro__ if kind in ADVICE), DEFAULT_ADVICE)
    if error.next_step is None:
        return found
    return Advice(found.exit_code, error.next_step)


def internal_error_text(error: Exception) -> str:
    """Return an error that nobody has foreseen as one line for the administrator."""
    return f"internal error: {type(error).__name__}: {error} (please report this)"


def error_text(error: CanhazgpuError) -> str:
    """Return the error as one line, with the next step if there is one."""
    text = " ".join(str(error).split())
    step = advice_for(error).next_step
    return f"{text} ({step})" if step else text
