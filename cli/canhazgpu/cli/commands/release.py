"""`canhazgpu release`: release one's own reservations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from canhazgpu.cli.app import App
from canhazgpu.cli.exit_codes import exit_codes
from canhazgpu.cli.options.common import json_option
from canhazgpu.cli.options.node import NODE_EXIT_CODES, node_option
from canhazgpu.cli.options.param_types import GPU_IDS
from canhazgpu.cli.options.value_completion import complete_own_gpu_ids
from canhazgpu.cli.terminal.gpu_names import format_gpus
from canhazgpu.cli.terminal.output import sanitized_errors
from canhazgpu.cli.terminal.released_gpus import print_released
from canhazgpu.errors import StoreError
from canhazgpu.service.holdings import ReleaseAnswer, ReleaseRequest

if TYPE_CHECKING:
    from canhazgpu.gpu.ids import GpuSelector


@click.command(epilog=exit_codes(StoreError, others=NODE_EXIT_CODES))
@click.option(
    "-G",
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
    app: App, gpu_ids: tuple[GpuSelector, ...] | None, force: bool, node: str | None, as_json: bool
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
    with sanitized_errors():
        answer = app.service().release(ReleaseRequest(node, gpu_ids, force), app.progress())
    print_released(answer, as_json=as_json, nothing=_nothing_released_text(answer))


def _nothing_released_text(answer: ReleaseAnswer) -> str:
    if answer.named_gpus is not None:
        named = format_gpus(answer.named_gpus, answer)
        return f"nothing to release: nobody holds {named} of {answer.node}"
    text = f"nothing to release: you have reserved no GPU of {answer.node}"
    if answer.run_holdings:
        held = format_gpus((gpu for one in answer.run_holdings for gpu in one.gpus), answer)
        text += f"; your running commands hold {held} until they end"
    return text
