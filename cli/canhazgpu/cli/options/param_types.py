"""Types of options that people write in their own ways: durations and lists of GPUs."""

from __future__ import annotations

from typing import Any

import click

from canhazgpu.durations import parse_duration
from canhazgpu.errors import InputError
from canhazgpu.gpu.ids import GpuSelector, parse_gpu_ids


# ParamType takes a type from click 8.4 on only.
class Duration(click.ParamType):  # type: ignore[type-arg]
    """``30m``, ``2h``, ``1d``, ``0.5h`` as seconds."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """See `click.ParamType.convert`."""
        if isinstance(value, int | float):
            return float(value)
        try:
            return parse_duration(value)
        except InputError as exc:
            self.fail(str(exc), param, ctx)


class GpuIds(click.ParamType):  # type: ignore[type-arg]
    """``1,3`` or ``GPU-68ab…`` as selectors, which a node's GPUs then resolve."""

    name = "gpus"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[GpuSelector, ...]:
        """See `click.ParamType.convert`."""
        if isinstance(value, tuple):
            return value
        try:
            return parse_gpu_ids(value)
        except InputError as exc:
            self.fail(str(exc), param, ctx)


DURATION = Duration()
GPU_IDS = GpuIds()
