"""`canhazgpu admin forget`: remove a node that is gone."""

from __future__ import annotations

import click

from canhazgpu.cli.app import App
from canhazgpu.cli.node_gpus import NodeGpus
from canhazgpu.cli.output import harmless_errors, say
from canhazgpu.errors import InputError
from canhazgpu.node.caller import require_root
from canhazgpu.people.holdings import holder_name, holdings, known_gpus


@click.command()
@click.argument("node")
@click.pass_obj
def forget(app: App, node: str) -> None:
    """Remove a node that is gone, with its scan, quarantines and queue; needs root.

    Its history stays, for reports. Refused while a GPU of it is reserved. A node that
    still runs comes back with its next scan.

    \b
    Example:
      canhazgpu admin forget gpu07
    """  # noqa: D301 - click reads the character: keep these lines
    require_root(app.caller(), "forget a node")
    config = app.effective().config
    ledger = app.writer(config.store)
    with harmless_errors():
        (view,) = ledger.look([node])
        _refuse_reserved(NodeGpus(view, known_gpus(view, view.scan.gpus if view.scan else ())))
        if not ledger.forget_node(node):
            raise InputError(
                f"the ledger knows no node {node!r}; 'canhazgpu admin nodes' shows all it knows"
            )
    say(f"forgot {node}; its history is kept")


def _refuse_reserved(gpus: NodeGpus) -> None:
    held = holdings(gpus.view, lambda _: True)
    if held:
        who = "; ".join(f"{gpus.names(one.gpus)} by {holder_name(one.claim)}" for one in held)
        ids = ",".join(sorted(gpu for one in held for gpu in one.gpus))
        raise InputError(
            f"{gpus.view.node} has reserved GPUs ({who}): release them first with"
            f" 'canhazgpu admin release --node {gpus.view.node} --gpu-ids {ids} --reason ...'"
        )
