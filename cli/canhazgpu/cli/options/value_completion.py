"""Shell completion of values from the ledger: GPUs, the caller's own GPUs, and nodes.

The functions `complete_*` are values for `shell_complete` of an option or argument. They only read,
print no errors, and give up after `TIMEOUT_S`.
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
"""Other values are not offered: others wrote them, and the shell puts them on a command line."""


def _query_service(context: click.Context, what: Completable) -> list[Completion]:
    """Ask the service, configured by the options on the command line that is completed."""
    root = context.find_root()
    app = context.find_object(App) or App()
    # For a completion click parses the root command's options, but does not call its function.
    app = app.with_options(root.params.get("config_file"), root.params.get("overrides") or {})
    return list(app.service().complete(CompletionRequest(what, TIMEOUT_S)))


def complete_nodes(
    context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete the name of a node that the ledger knows."""
    return _completion_items(
        _within_timeout(lambda: _query_service(context, Completable.NODE)), incomplete
    )


def complete_users(
    context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete the last item of a list of users who hold, use or wait for GPUs."""
    return complete_list(
        _within_timeout(lambda: _query_service(context, Completable.USER)), incomplete
    )


def complete_partitions(
    context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete the last item of a list of partitions that nodes have published."""
    return complete_list(
        _within_timeout(lambda: _query_service(context, Completable.PARTITION)), incomplete
    )


def complete_models(
    context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete the last item of a list of models that run on GPUs."""
    return complete_list(
        _within_timeout(lambda: _query_service(context, Completable.MODEL)), incomplete
    )


def complete_list(values: Iterable[Completion], incomplete: str) -> list[CompletionItem]:
    """Return the values for the last item of a list; what it has already is not offered again."""
    before, comma, _ = incomplete.rpartition(",")
    given = set(before.split(","))
    return _completion_items(
        [Completion(f"{before}{comma}{one.text}") for one in values if one.text not in given],
        incomplete,
    )


def complete_gpu_ids(
    context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete the last item of a list of this node's GPUs; see `_gpu_id_items`."""
    return _gpu_id_items(lambda: _query_service(context, Completable.GPU), incomplete)


def complete_own_gpu_ids(
    context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete as `complete_gpu_ids` does, with the GPUs that the caller has reserved."""
    return _gpu_id_items(lambda: _query_service(context, Completable.OWN_GPU), incomplete)


def _gpu_id_items(find: Callable[[], list[Completion]], incomplete: str) -> list[CompletionItem]:
    """Complete with each GPU's index.

    A GPU without an index of its own is completed by its UUID; so is every GPU once the item begins
    like a UUID.
    """
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
    """Return what `find` returns within `TIMEOUT_S`, else nothing.

    It runs in a daemon thread, because a lookup at a dead name server cannot be interrupted.
    """
    found: list[Completion] = []

    def work() -> None:
        # No error is shown: it would be printed into the user's prompt.
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
