"""The exit codes at the end of each command's help."""

from __future__ import annotations

from collections.abc import Mapping

from canhazgpu.errors import (
    AgentError,
    CanhazgpuError,
    InputError,
    NodeStateError,
    ScanError,
    StoreError,
    UnavailableError,
    advice_for,
)

HEADING = "Exit codes:"
EXIT_INTERRUPTED = 130
"""The status by which shells name a process that SIGINT has ended."""

_MEANINGS: Mapping[type[CanhazgpuError], str] = {
    InputError: "wrong options, values or configuration, or not permitted",
    ScanError: "the GPUs cannot be read",
    StoreError: "the store (Redis) does not answer, or answers with an error",
    NodeStateError: "the node's own files cannot be read or written",
    AgentError: "no agent runs on this node, or it does not answer",
    UnavailableError: "the GPUs are not to be had, or not in time",
}
_EVERY_COMMAND = {
    0: "done",
    1: "any other error",
    EXIT_INTERRUPTED: "interrupted by Ctrl-C",
}


def exit_codes(*errors: type[CanhazgpuError], others: Mapping[int, str] | None = None) -> str:
    r"""Return the ``epilog`` of a command that may end with these errors.

    Every command may end by wrong usage. `others` are further exit codes, or other meanings, by
    number. The first line, ``\b``, tells click to keep the lines.
    """
    kinds: tuple[type[CanhazgpuError], ...] = (InputError, *errors)
    by_error = {advice_for(kind()).exit_code: _MEANINGS[kind] for kind in kinds}
    meanings = {**_EVERY_COMMAND, **by_error, **(others or {})}
    lines = (f"  {code:<4} {meaning}" for code, meaning in sorted(meanings.items()))
    return "\n".join(("\b", HEADING, *lines))
