"""`canhazgpu status`: every GPU, who holds it, and what it really does."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import click

from canhazgpu.cli.app import App
from canhazgpu.cli.options import json_option, memory_threshold_option
from canhazgpu.errors import InputError, ScanError
from canhazgpu.node.identity import node_name
from canhazgpu.probe.node_probe import usage_policy

if TYPE_CHECKING:
    from canhazgpu.config import Config
    from canhazgpu.gpu.scan import Scan
    from canhazgpu.gpu.usage import UsagePolicy
    from canhazgpu.ledger.port import Ledger
    from canhazgpu.ledger.values import NodeView
    from canhazgpu.status.model import NodeStatus

SCHEDULER = "slurm"
"""The type of the reservations whose jobs are looked up."""


@click.command()
@click.option(
    "--node",
    "nodes",
    metavar="NAME",
    multiple=True,
    help="Show this node only; may be given several times.  [default: all that are known]",
)
@memory_threshold_option
@json_option
@click.pass_obj
def status(app: App, nodes: Sequence[str], memory_threshold: int | None, as_json: bool) -> None:
    """Show every GPU, who holds it, and what it really does.

    This node's GPUs are scanned now; another node's are shown as it last published
    them, with the age of that scan. Nothing is changed.

    \b
    A GPU is one of:
      available                    free and clean
      in use                       reserved, by the user shown
      in use, WITHOUT RESERVATION  used by someone who has not reserved it
      quarantined                  held back, for the reason shown
      unknown                      it could not be read; never taken for available

    \b
    Examples:
      canhazgpu status
      canhazgpu status --node gpu01 --node gpu02
      canhazgpu status --memory-threshold 512
      canhazgpu status --json | jq '.nodes[].gpus[] | select(.state == "available")'
    """  # noqa: D301 - click reads the character: keep these lines
    flags = {}
    if memory_threshold is not None:
        flags["validation.memory_threshold_mb"] = str(memory_threshold)
    config = app.effective(flags).config
    found = _gather(app, config, tuple(dict.fromkeys(nodes)))
    statuses = _judge(found, usage_policy(config.validation))
    click.echo(_json(statuses) if as_json else "\n".join(_lines(app, statuses)))
    if len(statuses) == 1 and found.fault:
        raise ScanError(found.fault)


class _Found(NamedTuple):
    views: list[NodeView]
    live: str | None
    """The node that was scanned for this answer, among the views."""
    fault: str | None
    """Why that scan as a whole failed."""


def _gather(app: App, config: Config, wanted: tuple[str, ...]) -> _Found:
    local = node_name(config.node, app.environ)
    began = app.clock()
    # The scan runs in its child while this process imports the store's client and reads.
    scanning = None
    if not wanted or local in wanted:
        scanning = app.probe(local, config.validation).start()

    from canhazgpu.ledger.connect import Role  # noqa: PLC0415 - not before the scan
    from canhazgpu.status.jobs import incomplete_jobs, with_jobs  # noqa: PLC0415

    views = _read(app.ledger(config.store, Role.READ), wanted, local)
    read_after_s = app.clock() - began
    if job_ids := incomplete_jobs(views.values(), SCHEDULER):
        facts = app.job_lookup(config.slurm, app.environ).jobs(job_ids)
        views = {name: with_jobs(view, facts, SCHEDULER) for name, view in views.items()}
    for name in wanted:
        if name != local and not _known(views[name]):
            raise InputError(
                f"the ledger knows no node {name!r}; 'canhazgpu status' shows all it knows"
            )
    if scanning is None:
        return _Found(_in_order(views), None, None)
    return _with_scan(views, local, scanning.observe().scan, read_after_s, named=local in wanted)


def _with_scan(
    views: dict[str, NodeView], local: str, scan: Scan, read_after_s: float, *, named: bool
) -> _Found:
    """Put this node's scan, begun that long before the ledger was read, into its view.

    A node without GPUs of its own, as one to log in to, is left out unless it was asked for.
    """
    from canhazgpu.status.model import with_live_scan  # noqa: PLC0415 - not before the scan

    own = views[local]
    if named or scan.gpus or _known(own):
        live = with_live_scan(own, scan, own.read_at - read_after_s)
        return _Found(_in_order({**views, local: live}), local, scan.fault)
    others = {name: view for name, view in views.items() if name != local}
    if not others:
        raise ScanError(scan.fault or "this node has no GPU, and the ledger knows no other node")
    return _Found(_in_order(others), None, None)


def _read(ledger: Ledger, wanted: tuple[str, ...], local: str) -> dict[str, NodeView]:
    """Return the wanted nodes' views, or all; with none wanted this node's is always there."""
    views = {view.node: view for view in ledger.look(wanted or None)}
    if not wanted and local not in views:
        views |= {view.node: view for view in ledger.look([local])}
    return views


def _known(view: NodeView) -> bool:
    return bool(view.scan or view.reservations or view.quarantines)


def _in_order(views: dict[str, NodeView]) -> list[NodeView]:
    return [views[name] for name in sorted(views)]


def _judge(found: _Found, policy: UsagePolicy) -> list[NodeStatus]:
    from canhazgpu.status.model import node_status  # noqa: PLC0415 - not before the scan

    return [node_status(view, policy, live=view.node == found.live) for view in found.views]


def _json(statuses: Sequence[NodeStatus]) -> str:
    from canhazgpu.status.json_form import status_to_dict  # noqa: PLC0415 - only with --json

    return json.dumps(status_to_dict(statuses[0].read_at, statuses), indent=2)


def _lines(app: App, statuses: Sequence[NodeStatus]) -> Iterator[str]:
    from canhazgpu.cli.table import printable, table_lines  # noqa: PLC0415 - not with --json
    from canhazgpu.status.text import cells, heading_text  # noqa: PLC0415

    # The heading says how old a scan is, so only a live one can go without.
    headed = len(statuses) > 1 or not statuses[0].live
    for place, one in enumerate(statuses):
        if place:
            yield ""
        if headed:
            yield printable(heading_text(one))
        yield from table_lines([cells(gpu, one.read_at) for gpu in one.gpus], app.width())
