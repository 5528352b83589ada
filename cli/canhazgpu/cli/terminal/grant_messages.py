"""Messages of `run` and `reserve`: why there is no grant, and who uses the granted GPUs."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import click

from canhazgpu.errors import UnavailableError

if TYPE_CHECKING:
    from canhazgpu.allocation.refusal import Refusal
    from canhazgpu.service.grants import Reserved, RunStarted


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
