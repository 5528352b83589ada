"""Values that the shell completes from the ledger: GPUs, one's own GPUs, and nodes.

Each function is for an option's or argument's `shell_complete`. Completion must never be in the
way: it only reads, is silent whatever fails, and gives up after a second.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

import click

from canhazgpu.cli.app import App

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from canhazgpu.ledger.values import NodeView, Reservation

LIMIT_S = 1.0

_HARMLESS = re.compile(r"[0-9A-Za-z][0-9A-Za-z_./-]*")
"""What is offered at most: the shell puts it on a command line, and others wrote it."""


class _Source:
    """What the ledger says, as the words before the cursor have it configured."""

    def __init__(self, context: click.Context) -> None:
        root = context.find_root()
        app = context.find_object(App) or App()
        # The root command's function does not run for a completion; its options are parsed.
        self._app = app.with_options(
            root.params.get("config_file"), root.params.get("overrides") or {}
        )

    def nodes(self) -> list[NodeView]:
        """Return all nodes."""
        return self._look(None)

    def own_node(self) -> NodeView:
        """Return this node."""
        from canhazgpu.node.identity import node_name  # noqa: PLC0415 - after the deadline is set

        name = node_name(self._app.effective().config.node, self._app.environ)
        return self._look([name])[0]

    def _look(self, names: list[str] | None) -> list[NodeView]:
        config = self._app.effective({"store.timeout_s": str(LIMIT_S)}).config
        return self._app.reader(config.store).look(names)


def complete_nodes(
    context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete the name of a node that the ledger knows."""
    names = _in_time(lambda: [_Value(view.node) for view in _Source(context).nodes()])
    return _items(names, incomplete)


def complete_gpu_ids(
    context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete the last of a list of this node's GPUs, by index, or by UUID once that is begun."""
    return _ids(lambda: _gpus(_Source(context).own_node(), lambda held: True), incomplete)


def complete_own_gpu_ids(
    context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete as `complete_gpu_ids` does, of the GPUs that the calling user has reserved."""
    return _ids(lambda: _gpus(_Source(context).own_node(), _is_own), incomplete)


class _Value(NamedTuple):
    """An id, another one of the same, and what is said of it."""

    text: str
    other: str = ""
    about: str = ""


def _gpus(view: NodeView, wanted: Callable[[Reservation | None], bool]) -> list[_Value]:
    """Return the wanted GPUs by UUID, with their index where it is theirs alone."""
    readings = {one.uuid: one for one in view.scan.gpus if one.uuid} if view.scan else {}
    found = []
    for uuid in {**readings, **view.reservations}:
        reading = readings.get(uuid)
        # A MIG instance shares its index with others.
        alone = reading is not None and reading.mig_index is None
        index = str(reading.index) if reading and alone else ""
        if wanted(view.reservations.get(uuid)):
            found.append(_Value(uuid, index, reading.name if reading else ""))
    return found


def _is_own(held: Reservation | None) -> bool:
    from canhazgpu.probe.processes import user_name  # noqa: PLC0415 - after the deadline is set
    from canhazgpu.status.coverage import same_person  # noqa: PLC0415

    uid = os.getuid()
    return held is not None and bool(
        same_person(held.claim.uid, held.claim.user, uid, user_name(uid))
    )


def _ids(find: Callable[[], list[_Value]], incomplete: str) -> list[CompletionItem]:
    """Complete with each GPU's index, or with its UUID where it has none or that is begun."""
    before, comma, last = incomplete.rpartition(",")
    given = set(before.split(",")) - {""}
    values = []
    for uuid, index, about in _in_time(find):
        by_index = index and not last.startswith(("G", "M"))
        if given.isdisjoint((uuid, index)):
            values.append(
                _Value(f"{before}{comma}{index}", about=f"{about} {uuid}")
                if by_index
                else _Value(f"{before}{comma}{uuid}", about=about)
            )
    return _items(values, incomplete)


def _in_time(find: Callable[[], list[_Value]]) -> list[_Value]:
    """Return what is found within the limit, else nothing.

    In a thread, which ends with the program: nothing interrupts a name server that does not answer.
    """
    found: list[_Value] = []

    def work() -> None:
        # Whatever it is that fails: the shell's prompt is no place to tell.
        with contextlib.suppress(Exception):
            found.extend(one for one in find() if _HARMLESS.fullmatch(one.text))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(LIMIT_S)
    return [] if thread.is_alive() else found


def _items(values: Iterable[_Value], incomplete: str) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem  # noqa: PLC0415 - only to complete

    from canhazgpu.cli.terminal_text import printable  # noqa: PLC0415

    return [
        CompletionItem(one.text, help=printable(one.about) or None)
        for one in values
        if one.text.startswith(incomplete)
    ]
