"""Messages of `run` and `reserve`: why there is no grant, which GPUs it has, who uses them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import click

from canhazgpu.errors import UnavailableError

if TYPE_CHECKING:
    from canhazgpu.allocation.refusal import Refusal
    from canhazgpu.service.grants import GpuRequest, Reserved, RunStarted


def raise_unavailable(refusal: Refusal) -> NoReturn:
    """Print why each GPU is not available, and raise `UnavailableError` with the reason."""
    for detail in refusal.details:
        click.echo(f"canhazgpu: {detail}", err=True)
    raise UnavailableError(refusal.reason)


def warn_of_unreserved_use(grant: Reserved | RunStarted) -> None:
    """Warn in red of processes on GPUs that were taken by force."""
    if not grant.in_use:
        return
    from canhazgpu.allocation.refusal import unreserved_use_text  # noqa: PLC0415
    from canhazgpu.cli.terminal.text import printable  # noqa: PLC0415 - only with --force

    for gpu in grant.gpus:
        if gpu.uuid in grant.in_use:
            text = printable(unreserved_use_text(gpu, grant.node))
            click.secho(f"canhazgpu: WARNING: taken by force: {text}", fg="red", err=True)


def print_named_gpus(grant: Reserved | RunStarted, request: GpuRequest) -> None:
    """Say on standard error which GPUs were taken, where the request named them.

    Slurm's ``-G 2`` is a count: whoever means that reads here what happened.
    """
    if not request.selectors:
        return
    from canhazgpu.cli.terminal.text import printable  # noqa: PLC0415 - only with --gpu-ids
    from canhazgpu.gpu.ids import GpuIndex  # noqa: PLC0415

    names = ", ".join(gpu.display_index for gpu in grant.gpus)
    text = f"canhazgpu: took GPU {names} of {printable(grant.node)}"
    first = request.selectors[0]
    if len(request.selectors) == 1 and isinstance(first, GpuIndex) and first.value:
        text += f" (-G names GPUs; for any {first} of them: -g {first})"
    click.echo(text, err=True)
