"""`canhazgpu admin release`: release reservations, whoever holds them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from canhazgpu.cli.app import App
from canhazgpu.cli.exit_codes import exit_codes
from canhazgpu.cli.options.common import json_option, reason_option
from canhazgpu.cli.options.node import NODE_EXIT_CODES, node_option
from canhazgpu.cli.options.param_types import GPU_IDS
from canhazgpu.cli.options.value_completion import complete_gpu_ids
from canhazgpu.cli.terminal.output import print_sanitized, sanitized_errors
from canhazgpu.cli.terminal.released_gpus import print_released, print_released_on_nodes
from canhazgpu.errors import StoreError
from canhazgpu.service.holdings import RevokeRequest

if TYPE_CHECKING:
    from canhazgpu.gpu.ids import GpuSelector

STILL_RUNS = "what still runs there goes on, and shows as in use WITHOUT RESERVATION"


@click.command(epilog=exit_codes(StoreError, others=NODE_EXIT_CODES))
@click.option(
    "-G",
    "--gpu-ids",
    type=GPU_IDS,
    shell_complete=complete_gpu_ids,
    metavar="IDS",
    help="What is reserved of these GPUs.",
)
@click.option("--user", metavar="NAME", help="What this user holds.")
@click.option("--owner", metavar="TOKEN", help="What this owner holds, as status --json shows it.")
@click.option(
    "--job", metavar="ID", help="What this job holds, on all its nodes unless one is named."
)
@reason_option("Why; the owner sees it.")
@node_option
@json_option
@click.pass_obj
def release(  # noqa: PLR0913 - an option each
    app: App,
    *,
    gpu_ids: tuple[GpuSelector, ...] | None,
    user: str | None,
    owner: str | None,
    job: str | None,
    reason: str,
    node: str | None,
    as_json: bool,
) -> None:
    """Take reservations away, whoever holds them; needs root.

    Say which by at least one of --gpu-ids, --user, --owner and --job; of several, all
    must fit. Nobody's processes are ended: what still runs there is then in use
    WITHOUT RESERVATION, and its GPU is granted to nobody before it ends. The reason
    is kept in the history, where the owner finds it.

    With --job, and neither --node nor --gpu-ids, it is done on all of the job's nodes.
    Where one does not answer, what the others released stays released. A job that Slurm
    still runs has its GPUs again with the next health check: cancel it first.

    \b
    Examples:
      canhazgpu admin release --gpu-ids 3 --reason "needed for the demo"
      canhazgpu admin release --user alice --node gpu02 --reason "on holiday"
      canhazgpu admin release --job 123 --reason "its epilog was lost"
    """  # noqa: D301 - click reads the character: keep these lines
    if gpu_ids is None and user is None and owner is None and job is None:
        raise click.UsageError("say which: --gpu-ids, --user, --owner or --job")
    request = RevokeRequest(reason, node, gpu_ids, user, owner, job)
    if job is not None and node is None and gpu_ids is None:
        _release_job(app, request, as_json=as_json)
        return
    with sanitized_errors():
        answer = app.service().revoke(request, app.progress())
    nothing = f"nothing to release: no such reservation on {answer.node}"
    print_released(answer, as_json=as_json, nothing=nothing)
    if answer.released and not as_json:
        print_sanitized(STILL_RUNS)


def _release_job(app: App, request: RevokeRequest, *, as_json: bool) -> None:
    with sanitized_errors():
        answers = app.service().revoke_job(request, app.progress())
    nothing = f"nothing to release: no node knows of GPUs that job {request.job_id} holds"
    print_released_on_nodes(answers, as_json=as_json, nothing=nothing)
    if any(one.released for one in answers) and not as_json:
        print_sanitized(STILL_RUNS)
