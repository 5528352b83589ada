"""What `run` and `reserve` print of the answer: why there is no grant, and who uses the GPUs."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import click

from canhazgpu.errors import UnavailableError

if TYPE_CHECKING:
    from canhazgpu.allocation.refusal import Refusal
    from canhazgpu.service.grants import Reserved, RunStarted


def raise_unavailable(refusal: Refusal) -> NoReturn:
    """Say who is in the way, GPU by GPU, and end the command with the reason."""
    for detail in refusal.details:
        click.echo(f"canhazgpu: {detail}", err=True)
    raise UnavailableError(refusal.reason)


def warn_of_unreserved_use(grant: Reserved | RunStarted) -> None:
    """Say loudly whose processes are on the GPUs that were taken all the same."""
    if not grant.in_use:
        return
    from canhazgpu.allocation.refusal import unreserved_use_text  # noqa: PLC0415
    from canhazgpu.cli.terminal.text import printable  # noqa: PLC0415 - only with --force

    for gpu in grant.gpus:
        if gpu.uuid in grant.in_use:
            text = printable(unreserved_use_text(gpu, grant.node))
            click.secho(f"canhazgpu: WARNING: taken by force: {text}", fg="red", err=True)
