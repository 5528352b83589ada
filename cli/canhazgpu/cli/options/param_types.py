"""Types of option values: durations and lists of GPUs."""

from __future__ import annotations

import math
import re
from typing import Any

import click

from canhazgpu.durations import parse_duration
from canhazgpu.errors import InputError
from canhazgpu.gpu.ids import GpuSelector, parse_gpu_ids

FOREVER = "forever"
_MIG_PROFILE = re.compile(r"[0-9][0-9A-Za-z.+_-]{0,39}")


# ParamType is generic only from click 8.4 on.
class Duration(click.ParamType):  # type: ignore[type-arg]
    """A duration such as ``30m``, ``2h``, ``1d`` or ``0.5h``, converted to seconds."""

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


class WaitTime(Duration):
    """A duration, or ``forever``, which is infinite."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """See `click.ParamType.convert`."""
        if isinstance(value, str) and value.strip().lower() == FOREVER:
            return math.inf
        return super().convert(value, param, ctx)


class Seconds(click.FloatRange):
    """A number of seconds in a range; click finds that "nan" lies in each."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """See `click.ParamType.convert`."""
        seconds = float(super().convert(value, param, ctx))
        if math.isnan(seconds):
            self.fail(f"{value!r} is no number of seconds", param, ctx)
        return seconds


class GpuIds(click.ParamType):  # type: ignore[type-arg]
    """A list of GPUs such as ``1,3`` or ``GPU-68ab…``, converted to selectors."""

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


class MigProfile(click.ParamType):  # type: ignore[type-arg]
    """A profile of MIG instances, ``1g.10gb``, as the driver and Slurm's types name it."""

    name = "profile"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """See `click.ParamType.convert`."""
        text = str(value)
        if text and not _MIG_PROFILE.fullmatch(text):
            self.fail(
                f"{text[:40]!r} is no profile; accepted: a name as 1g.10gb, which"
                " 'nvidia-smi -L' shows",
                param,
                ctx,
            )
        return text


DURATION = Duration()
WAIT_TIME = WaitTime()
GPU_IDS = GpuIds()
MIG_PROFILE = MigProfile()
