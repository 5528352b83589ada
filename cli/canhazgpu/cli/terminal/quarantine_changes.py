"""Output of `admin quarantine` and `admin unquarantine`: a line for each GPU."""

from __future__ import annotations

from collections.abc import Callable

from canhazgpu.cli.terminal.gpu_names import format_gpus
from canhazgpu.cli.terminal.output import print_sanitized
from canhazgpu.service.health import QuarantineAnswer, QuarantineChange


def print_quarantine_changes(
    answer: QuarantineAnswer, message: Callable[[str, QuarantineChange], str]
) -> None:
    """Print the message for each change, then raise the error that ended the request early.

    `message` takes the GPU as people name it, and its change.
    """
    for change in answer.changes:
        print_sanitized(message(f"{format_gpus([change.gpu], answer)} of {answer.node}", change))
    if answer.fault is not None:
        raise answer.fault
