"""`canhazgpu admin unquarantine`: lift quarantines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from canhazgpu.cli.app import App
from canhazgpu.cli.exit_codes import exit_codes
from canhazgpu.cli.options.gpus_argument import gpus_argument
from canhazgpu.cli.options.node import NODE_EXIT_CODES, node_option
from canhazgpu.cli.terminal.output import sanitized_errors
from canhazgpu.cli.terminal.quarantine_changes import print_quarantine_changes
from canhazgpu.errors import StoreError
from canhazgpu.service.health import QuarantineChange, UnquarantineRequest

if TYPE_CHECKING:
    from canhazgpu.gpu.ids import GpuSelector


@click.command(epilog=exit_codes(StoreError, others=NODE_EXIT_CODES))
@gpus_argument
@node_option
@click.pass_obj
def unquarantine(app: App, gpu_ids: tuple[GpuSelector, ...], node: str | None) -> None:
    """Let GPUs be granted again; needs root.

    A GPU that is still unhealthy is quarantined again by the node's next scan.

    \b
    Examples:
      canhazgpu admin unquarantine 3
      canhazgpu admin unquarantine 0-3 --node gpu02
    """  # noqa: D301 - click reads the character: keep these lines
    with sanitized_errors():
        answer = app.service().unquarantine(UnquarantineRequest(gpu_ids, node), app.progress())

    def message(name: str, change: QuarantineChange) -> str:
        if not change.changed:
            return f"{name} was not quarantined"
        again = f"; the next scan sets it again: {change.unhealthy}" if change.unhealthy else ""
        return f"unquarantined {name}{again}"

    print_quarantine_changes(answer, message)
