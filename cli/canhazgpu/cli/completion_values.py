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
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from canhazgpu.cli.app import App

if TYPE_CHECKING:
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
        from canhazgpu.ledger.connect import Role  # noqa: PLC0415 - as above

        config = self._app.effective({"store.timeout_s": str(LIMIT_S)}).config
        return self._app.ledger(config.store, Role.READ).look(names)


def complete_nodes(
    context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete the name of a node that the ledger knows."""
    names = _in_time(lambda: [(view.node, "") for view in _Source(context).nodes()])
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


_Values = list[tuple[str, str]]
"""Values, each with what is said of it."""


def _gpus(view: NodeView, wanted: Callable[[Reservation | None], bool]) -> _Values:
    """Return the ids of the wanted GPUs: indices, where there are such, and then UUIDs."""
    readings = {one.uuid: one for one in view.scan.gpus if one.uuid} if view.scan else {}
    uuids = [one for one in {**readings, **view.reservations} if wanted(view.reservations.get(one))]
    indices = [
        (str(readings[one].index), f"{readings[one].name} {one}")
        for one in uuids
        # A MIG instance shares its index with others.
        if one in readings and readings[one].mig_index is None
    ]
    return [*indices, *((one, readings[one].name if one in readings else "") for one in uuids)]


def _is_own(held: Reservation | None) -> bool:
    from canhazgpu.probe.processes import user_name  # noqa: PLC0415 - after the deadline is set
    from canhazgpu.status.coverage import same_person  # noqa: PLC0415

    uid = os.getuid()
    return held is not None and bool(
        same_person(held.claim.uid, held.claim.user, uid, user_name(uid))
    )


def _ids(find: Callable[[], _Values], incomplete: str) -> list[CompletionItem]:
    before, comma, last = incomplete.rpartition(",")
    given = set(before.split(","))
    found = [(value, about) for value, about in _in_time(find) if value not in given]
    numbered = [one for one in found if one[0].isdecimal()]
    # Nobody wants to see each GPU twice; the UUIDs come once their beginning is typed.
    shown = numbered if numbered and not last else found
    return _items(((f"{before}{comma}{value}", about) for value, about in shown), incomplete)


def _in_time(find: Callable[[], _Values]) -> _Values:
    """Return what is found within the limit, else nothing.

    In a thread, which ends with the program: nothing interrupts a name server that does not answer.
    """
    found: _Values = []

    def work() -> None:
        # Whatever it is that fails: the shell's prompt is no place to tell.
        with contextlib.suppress(Exception):
            found.extend(one for one in find() if _HARMLESS.fullmatch(one[0]))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(LIMIT_S)
    return [] if thread.is_alive() else found


def _items(values: Iterable[tuple[str, str]], incomplete: str) -> list[CompletionItem]:
    from canhazgpu.cli.table import printable  # noqa: PLC0415 - only to complete

    return [
        CompletionItem(value, help=printable(about) or None)
        for value, about in values
        if value.startswith(incomplete)
    ]
