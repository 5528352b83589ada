"""The argument that names GPUs, as one or several lists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from canhazgpu.cli.options.param_types import GPU_IDS
from canhazgpu.cli.options.value_completion import complete_gpu_ids

if TYPE_CHECKING:
    from canhazgpu.gpu.ids import GpuSelector


def _flatten(
    _context: click.Context, _parameter: click.Parameter, lists: Sequence[tuple[GpuSelector, ...]]
) -> tuple[GpuSelector, ...]:
    return tuple(one for some in lists for one in some)


gpus_argument = click.argument(
    "gpu_ids",
    metavar="GPU...",
    type=GPU_IDS,
    shell_complete=complete_gpu_ids,
    nargs=-1,
    required=True,
    callback=_flatten,
)
