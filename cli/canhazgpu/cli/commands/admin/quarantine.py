"""`canhazgpu admin quarantine`: quarantine GPUs by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from canhazgpu.allocation.holder_text import holder_name
from canhazgpu.cli.app import App
from canhazgpu.cli.exit_codes import exit_codes
from canhazgpu.cli.options.common import reason_option
from canhazgpu.cli.options.gpus_argument import gpus_argument
from canhazgpu.cli.options.node import NODE_EXIT_CODES, node_option
from canhazgpu.cli.terminal.output import sanitized_errors
from canhazgpu.cli.terminal.quarantine_changes import print_quarantine_changes
from canhazgpu.errors import StoreError
from canhazgpu.service.health import QuarantineChange, QuarantineRequest

if TYPE_CHECKING:
    from canhazgpu.gpu.ids import GpuSelector


@click.command(epilog=exit_codes(StoreError, others=NODE_EXIT_CODES))
@gpus_argument
@reason_option("Why; everybody sees it in status.")
@node_option
@click.pass_obj
def quarantine(app: App, gpu_ids: tuple[GpuSelector, ...], reason: str, node: str | None) -> None:
    """Hold GPUs back from grants until they are unquarantined; needs root.

    Whoever has one keeps it until it is released. Health never lifts a quarantine that
    was set by hand.

    \b
    Examples:
      canhazgpu admin quarantine 3 --reason "fan is broken"
      canhazgpu admin quarantine 0-3 GPU-68ab --node gpu02 --reason "burn-in test"
    """  # noqa: D301 - click reads the character: keep these lines
    with sanitized_errors():
        request = QuarantineRequest(gpu_ids, reason, node)
        answer = app.service().quarantine(request, app.progress())

    def message(name: str, change: QuarantineChange) -> str:
        previous, holders = change.previous, ", ".join(map(holder_name, change.holders))
        if not change.changed:
            why = f": {previous.reason} (by {previous.by})" if previous else ""
            return f"{name} was quarantined already{why}"
        verb = "keeps" if len(change.holders) == 1 else "keep"
        keeps = f"; {holders} {verb} it until it is released" if holders else ""
        return f"quarantined {name}: {reason}{keeps}"

    print_quarantine_changes(answer, message)
