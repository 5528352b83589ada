"""`canhazgpu release`: give back what one reserved."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from canhazgpu.cli.app import App
from canhazgpu.cli.completion_values import complete_own_gpu_ids
from canhazgpu.cli.node_gpus import NodeGpus, node_gpus, node_option
from canhazgpu.cli.options import json_option
from canhazgpu.cli.output import harmless_errors, say
from canhazgpu.cli.param_types import GPU_IDS
from canhazgpu.people.holdings import Holding, holder_name
from canhazgpu.people.own import own_runs, to_release

if TYPE_CHECKING:
    from canhazgpu.gpu.ids import Selector
    from canhazgpu.ledger.port import Ledger

REASON = "released by its owner"


@click.command()
@click.option(
    "--gpu-ids",
    type=GPU_IDS,
    shell_complete=complete_own_gpu_ids,
    metavar="IDS",
    help="Release these: 1,3 or 0-3, UUIDs or their beginnings.  [default: all you reserved]",
)
@click.option("--force", is_flag=True, help="Release a running command's GPUs too, if named.")
@node_option
@json_option
@click.pass_obj
def release(
    app: App, gpu_ids: tuple[Selector, ...] | None, force: bool, node: str | None, as_json: bool
) -> None:
    """Give back GPUs that you reserved.

    Without --gpu-ids all that you reserved by hand on this node. A running command's
    GPUs are released when it ends; naming them here needs --force, and the command
    goes on. Another user's GPUs are refused, and then nothing is released. Having
    nothing to release is no error.

    \b
    Examples:
      canhazgpu release
      canhazgpu release --gpu-ids 1,3
      canhazgpu release --node gpu02 --gpu-ids GPU-68ab
    """  # noqa: D301 - click reads the character: keep these lines
    config = app.effective().config
    uid = app.caller().uid
    ledger = app.writer(config.store)
    with harmless_errors():
        gpus = node_gpus(app, config, ledger, node, gpu_ids)
        named = None if gpu_ids is None else gpus.resolve(gpu_ids)
        wanted = to_release(gpus.view, uid, named, gpus.places, force=force)
    released = release_all(ledger, gpus, wanted, REASON, quiet=as_json)
    if as_json:
        click.echo(released_json(gpus, released))
    elif not released:
        say(_nothing(gpus, named, uid))


def release_all(
    ledger: Ledger,
    gpus: NodeGpus,
    wanted: Sequence[Holding],
    reason: str,
    by: str = "",
    *,
    quiet: bool,
) -> list[Holding]:
    """Release these, each said as soon as it is done; returns what was still held by then."""
    done = []
    for one in wanted:
        freed = ledger.release(gpus.view.node, one.claim.owner, reason, one.gpus, by)
        if not freed:
            continue
        done.append(Holding(one.claim, tuple(freed)))
        if not quiet:
            say(f"released {gpus.names(freed)} of {gpus.view.node}: {holder_name(one.claim)}")
    return done


def released_json(gpus: NodeGpus, released: Sequence[Holding]) -> str:
    """Return what was released, for programs."""
    rows: list[dict[str, Any]] = [
        {
            "gpu": gpus.places.get(uuid),
            "uuid": uuid,
            "user": one.claim.user,
            "type": one.claim.type,
            "owner": one.claim.owner,
        }
        for one in released
        for uuid in one.gpus
    ]
    return json.dumps({"node": gpus.view.node, "released": rows}, indent=2)


def _nothing(gpus: NodeGpus, named: Sequence[str] | None, uid: int) -> str:
    if named is not None:
        return f"nothing to release: nobody holds {gpus.names(named)} of {gpus.view.node}"
    text = f"nothing to release: you have reserved no GPU of {gpus.view.node}"
    if runs := own_runs(gpus.view, uid):
        held = gpus.names(gpu for one in runs for gpu in one.gpus)
        text += f"; your running commands hold {held} until they end"
    return text
