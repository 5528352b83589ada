"""`canhazgpu admin quarantine` and `unquarantine`: hold GPUs back from grants, by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from canhazgpu.cli.app import App
from canhazgpu.cli.completion_values import complete_gpu_ids
from canhazgpu.cli.node_gpus import NodeGpus, node_gpus, node_option
from canhazgpu.cli.output import harmless_errors, reason_option, say
from canhazgpu.cli.param_types import GPU_IDS
from canhazgpu.gpu.health import unhealthy
from canhazgpu.gpu.ids import refuse_twice
from canhazgpu.node.caller import Caller, require_root
from canhazgpu.people.holdings import current, holder_name

if TYPE_CHECKING:
    from canhazgpu.config import Config
    from canhazgpu.gpu.ids import Selector
    from canhazgpu.ledger.port import Ledger

gpus_argument = click.argument(
    "gpu_ids",
    metavar="GPU...",
    type=GPU_IDS,
    shell_complete=complete_gpu_ids,
    nargs=-1,
    required=True,
)


@click.command()
@gpus_argument
@reason_option("Why; everybody sees it in status.")
@node_option
@click.pass_obj
def quarantine(
    app: App, gpu_ids: Sequence[tuple[Selector, ...]], reason: str, node: str | None
) -> None:
    """Hold GPUs back from grants until they are unquarantined; needs root.

    Whoever has one keeps it until it is released. Health never lifts a quarantine that
    was set by hand.

    \b
    Examples:
      canhazgpu admin quarantine 3 --reason "fan is broken"
      canhazgpu admin quarantine 0-3 GPU-68ab --node gpu02 --reason "burn-in test"
    """  # noqa: D301 - click reads the character: keep these lines
    caller, _, ledger, gpus, uuids = _named(app, gpu_ids, node)
    held = current(gpus.view)
    for uuid in uuids:
        name = f"{gpus.names([uuid])} of {gpus.view.node}"
        if not ledger.quarantine(gpus.view.node, uuid, reason, caller.user):
            before = gpus.view.quarantines.get(uuid)
            why = f": {before.reason} (by {before.by})" if before else ""
            say(f"{name} was quarantined already{why}")
            continue
        keeps = ""
        if uuid in held:
            keeps = f"; {holder_name(held[uuid].claim)} keeps it until it is released"
        say(f"quarantined {name}: {reason}{keeps}")


@click.command()
@gpus_argument
@node_option
@click.pass_obj
def unquarantine(app: App, gpu_ids: Sequence[tuple[Selector, ...]], node: str | None) -> None:
    """Let GPUs be granted again; needs root.

    A GPU that is still unhealthy is quarantined again by the node's next scan.

    \b
    Examples:
      canhazgpu admin unquarantine 3
      canhazgpu admin unquarantine 0-3 --node gpu02
    """  # noqa: D301 - click reads the character: keep these lines
    caller, config, ledger, gpus, uuids = _named(app, gpu_ids, node)
    sick = unhealthy(gpus.readings, config.validation.health_checks)
    for uuid in uuids:
        name = f"{gpus.names([uuid])} of {gpus.view.node}"
        if ledger.unquarantine(gpus.view.node, uuid, caller.user):
            again = f"; the next scan sets it again: {sick[uuid]}" if uuid in sick else ""
            say(f"unquarantined {name}{again}")
        else:
            say(f"{name} was not quarantined")


def _named(
    app: App, gpu_ids: Sequence[tuple[Selector, ...]], node: str | None
) -> tuple[Caller, Config, Ledger, NodeGpus, tuple[str, ...]]:
    """Return what both commands need, with the UUIDs of the GPUs that are named."""
    caller = app.caller()
    require_root(caller, "change what is quarantined")
    config = app.effective().config
    ledger = app.writer(config.store)
    selectors = [one for some in gpu_ids for one in some]
    with harmless_errors():
        refuse_twice(selectors)
        gpus = node_gpus(app, config, ledger, node, selectors)
        return caller, config, ledger, gpus, gpus.resolve(selectors)
