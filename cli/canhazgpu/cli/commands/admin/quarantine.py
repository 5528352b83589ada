"""`canhazgpu admin quarantine` and `unquarantine`: hold GPUs back from grants, by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import click

from canhazgpu.cli.app import App
from canhazgpu.cli.options.node import format_gpus, node_option
from canhazgpu.cli.options.param_types import GPU_IDS
from canhazgpu.cli.options.value_completion import complete_gpu_ids
from canhazgpu.cli.terminal.output import print_sanitized, reason_option, sanitized_errors
from canhazgpu.people.holdings import holder_name
from canhazgpu.service.health import (
    QuarantineAnswer,
    QuarantineChange,
    QuarantineRequest,
    UnquarantineRequest,
)

if TYPE_CHECKING:
    from canhazgpu.gpu.ids import GpuSelector

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
    app: App, gpu_ids: Sequence[tuple[GpuSelector, ...]], reason: str, node: str | None
) -> None:
    """Hold GPUs back from grants until they are unquarantined; needs root.

    Whoever has one keeps it until it is released. Health never lifts a quarantine that
    was set by hand.

    \b
    Examples:
      canhazgpu admin quarantine 3 --reason "fan is broken"
      canhazgpu admin quarantine 0-3 GPU-68ab --node gpu02 --reason "burn-in test"
    """  # noqa: D301 - click reads the character: keep these lines
    with sanitized_errors():
        request = QuarantineRequest(_flatten(gpu_ids), reason, node)
        answer = app.service().quarantine(request)

    def said(name: str, change: QuarantineChange) -> str:
        before, holder = change.before, change.holder
        if not change.changed:
            why = f": {before.reason} (by {before.by})" if before else ""
            return f"{name} was quarantined already{why}"
        keeps = f"; {holder_name(holder)} keeps it until it is released" if holder else ""
        return f"quarantined {name}: {reason}{keeps}"

    _print_changes(answer, said)


@click.command()
@gpus_argument
@node_option
@click.pass_obj
def unquarantine(app: App, gpu_ids: Sequence[tuple[GpuSelector, ...]], node: str | None) -> None:
    """Let GPUs be granted again; needs root.

    A GPU that is still unhealthy is quarantined again by the node's next scan.

    \b
    Examples:
      canhazgpu admin unquarantine 3
      canhazgpu admin unquarantine 0-3 --node gpu02
    """  # noqa: D301 - click reads the character: keep these lines
    with sanitized_errors():
        answer = app.service().unquarantine(UnquarantineRequest(_flatten(gpu_ids), node))

    def said(name: str, change: QuarantineChange) -> str:
        if not change.changed:
            return f"{name} was not quarantined"
        again = f"; the next scan sets it again: {change.unhealthy}" if change.unhealthy else ""
        return f"unquarantined {name}{again}"

    _print_changes(answer, said)


def _flatten(gpu_ids: Sequence[tuple[GpuSelector, ...]]) -> tuple[GpuSelector, ...]:
    return tuple(one for some in gpu_ids for one in some)


def _print_changes(answer: QuarantineAnswer, said: Callable[[str, QuarantineChange], str]) -> None:
    for change in answer.changes:
        print_sanitized(said(f"{format_gpus([change.gpu], answer)} of {answer.node}", change))
    if answer.fault is not None:
        raise answer.fault
