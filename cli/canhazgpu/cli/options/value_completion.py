"""Values that the shell completes from the ledger: GPUs, one's own GPUs, and nodes.

Each function is for an option's or argument's `shell_complete`. Completion must never be in the
way: it only reads, is silent whatever fails, and gives up after a second.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import click

from canhazgpu.cli.app import App
from canhazgpu.service.completion import Completable, Completion, CompletionRequest

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

TIMEOUT_S = 1.0

_SAFE_VALUE = re.compile(r"[0-9A-Za-z][0-9A-Za-z_./-]*")
"""What is offered at most: the shell puts it on a command line, and others wrote it."""


def _query_service(context: click.Context, what: Completable) -> list[Completion]:
    """Return what the service knows, as the words before the cursor have it configured."""
    root = context.find_root()
    app = context.find_object(App) or App()
    # The root command's function does not run for a completion; its options are parsed.
    app = app.with_options(root.params.get("config_file"), root.params.get("overrides") or {})
    return list(app.service().complete(CompletionRequest(what, TIMEOUT_S)))


def complete_nodes(
    context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete the name of a node that the ledger knows."""
    return _completion_items(
        _within_timeout(lambda: _query_service(context, Completable.NODE)), incomplete
    )


def complete_gpu_ids(
    context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete the last of a list of this node's GPUs, by index, or by UUID once that is begun."""
    return _gpu_id_items(lambda: _query_service(context, Completable.GPU), incomplete)


def complete_own_gpu_ids(
    context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete as `complete_gpu_ids` does, of the GPUs that the calling user has reserved."""
    return _gpu_id_items(lambda: _query_service(context, Completable.OWN_GPU), incomplete)


def _gpu_id_items(find: Callable[[], list[Completion]], incomplete: str) -> list[CompletionItem]:
    """Complete with each GPU's index, or with its UUID where it has none or that is begun."""
    before, comma, last = incomplete.rpartition(",")
    given = set(before.split(",")) - {""}
    values = []
    for one in _within_timeout(find):
        by_index = one.index and not last.startswith(("G", "M"))
        if given.isdisjoint((one.text, one.index)):
            values.append(
                Completion(f"{before}{comma}{one.index}", model=f"{one.model} {one.text}")
                if by_index
                else Completion(f"{before}{comma}{one.text}", model=one.model)
            )
    return _completion_items(values, incomplete)


def _within_timeout(find: Callable[[], list[Completion]]) -> list[Completion]:
    """Return what is found within the limit, else nothing.

    In a thread, which ends with the program: nothing interrupts a name server that does not answer.
    """
    found: list[Completion] = []

    def work() -> None:
        # Whatever it is that fails: the shell's prompt is no place to tell.
        with contextlib.suppress(Exception):
            found.extend(one for one in find() if _SAFE_VALUE.fullmatch(one.text))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(TIMEOUT_S)
    return [] if thread.is_alive() else found


def _completion_items(values: Iterable[Completion], incomplete: str) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem  # noqa: PLC0415 - only to complete

    from canhazgpu.cli.terminal.text import printable  # noqa: PLC0415

    return [
        CompletionItem(one.text, help=printable(one.model) or None)
        for one in values
        if one.text.startswith(incomplete)
    ]
