"""`canhazgpu events`: what happened on the nodes, as lines."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from canhazgpu.cli.app import App
from canhazgpu.cli.options import json_option, nodes_option
from canhazgpu.durations import parse_duration
from canhazgpu.errors import CanhazgpuError, InputError

if TYPE_CHECKING:
    from canhazgpu.config import Config
    from canhazgpu.ledger.port import Ledger
    from canhazgpu.status.event_text import NodeEvent

DEFAULT_SINCE = "1h"
MAX_FOLLOWED = 64
"""Nodes followed at once: each takes a connection of its own."""
LOOK_EVERY_S = 5.0
LATE_S = 3600.0
"""What a node did without its store is told later, by so much at most here."""


@click.command()
@nodes_option("Show")
@click.option(
    "--since",
    metavar="TIME",
    default=DEFAULT_SINCE,
    show_default=True,
    help="Go back so far, as 90s, 30m, 2h or 7d.",
)
@click.option("--follow", "-f", is_flag=True, help="Go on with what happens from now on.")
@json_option
@click.pass_obj
def events(app: App, nodes: Sequence[str], since: str, follow: bool, as_json: bool) -> None:
    """Show what happened: grants, releases, quarantines, and what Slurm's hooks decided.

    With --json each line is one event.

    \b
    Examples:
      canhazgpu events
      canhazgpu events --since 7d --node gpu01
      canhazgpu events --follow --json | jq 'select(.kind == "quarantine")'
    """  # noqa: D301 - click reads the character: keep these lines
    back_s = parse_duration(since)
    config = app.effective().config
    shown = read_events(app, config, tuple(dict.fromkeys(nodes)), back_s)
    for one in shown.events:
        _show(one, as_json)
    if follow:
        for one in _followed(app, config, shown):
            _show(one, as_json)


@dataclass(frozen=True, slots=True)
class Shown:
    """The events so far of these nodes; `now` is the store's time before they were read."""

    now: float
    nodes: Sequence[str]
    events: Sequence[NodeEvent]


def read_events(app: App, config: Config, nodes: Sequence[str], back_s: float) -> Shown:
    """Return the events of the last `back_s` seconds; raises `InputError` for an unknown node."""
    from canhazgpu.status.event_text import NodeEvent, in_order  # noqa: PLC0415

    ledger = app.reader(config.store)
    views = ledger.look(nodes or None)
    now = max((view.read_at for view in views), default=0.0)
    found: list[NodeEvent] = []
    for view in views:
        history = ledger.history(view.node, now - back_s)
        if view.node in nodes and view.scan is None and not history:
            raise InputError(
                f"the ledger knows no node {view.node!r}; 'canhazgpu status' shows all it knows"
            )
        found += [NodeEvent(view.node, event) for event in history]
    return Shown(now, [view.node for view in views], in_order(found))


def _show(one: NodeEvent, as_json: bool) -> None:
    from canhazgpu.cli.terminal_text import printable  # noqa: PLC0415 - only where something happened
    from canhazgpu.status.event_text import event_line, event_to_dict  # noqa: PLC0415

    click.echo(json.dumps(event_to_dict(one)) if as_json else printable(event_line(one)))


def _followed(app: App, config: Config, shown: Shown) -> Iterator[NodeEvent]:
    """Return what happens from now on, as it happens; ends with an error alone."""
    if len(shown.nodes) > MAX_FOLLOWED:
        raise InputError(
            f"there are {len(shown.nodes)} nodes; name up to {MAX_FOLLOWED} with --node to follow"
        )
    if not shown.nodes:
        raise InputError("the ledger knows no node yet; name one with --node to wait for it")
    told: queue.SimpleQueue[NodeEvent | CanhazgpuError] = queue.SimpleQueue()
    last = dict.fromkeys(shown.nodes, (int(shown.now * 1000), 0))
    for one in shown.events:
        last[one.node] = max(last[one.node], _place(one.event.id))
    for node in shown.nodes:
        follower = _Follower(app.reader(config.store), node, last[node], shown.now)
        threading.Thread(target=follower.run, args=(told,), daemon=True).start()
    while True:
        one_more = told.get()
        if isinstance(one_more, CanhazgpuError):
            raise one_more
        yield one_more


class _Follower:
    """One node's history from a place on."""

    def __init__(self, ledger: Ledger, node: str, last: tuple[int, int], now: float) -> None:
        self._ledger = ledger
        self._node = node
        self._last = last
        self._now = now

    def run(self, told: queue.SimpleQueue[NodeEvent | CanhazgpuError]) -> None:
        """Tell each event, and what ends that."""
        from canhazgpu.status.event_text import NodeEvent, in_order  # noqa: PLC0415

        try:
            after = self._ledger.await_change(self._node, "", 0)
            while True:
                new = [
                    NodeEvent(self._node, event)
                    for event in self._ledger.history(self._node, self._now - LATE_S)
                    if _place(event.id) > self._last
                ]
                for one in in_order(new):
                    told.put(one)
                self._last = max([self._last, *(_place(one.event.id) for one in new)])
                self._now = max(self._now, self._last[0] / 1000)
                after = self._ledger.await_change(self._node, after, LOOK_EVERY_S)
        except CanhazgpuError as exc:
            told.put(exc)


def _place(entry_id: str) -> tuple[int, int]:
    """Return an event's place in its stream, for comparison."""
    milliseconds, _, number = entry_id.partition("-")
    return int(milliseconds), int(number or 0)
