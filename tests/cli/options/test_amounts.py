"""Amounts that cannot be, for every option of every command that takes a number."""

from __future__ import annotations

import math
from collections.abc import Iterator

import click
import pytest
from command_tree import all_commands

from canhazgpu.cli.options.param_types import Duration

AMOUNTS = (
    "nan", "NaN", "-nan", "inf", "-inf", "Infinity", "-1", "-1s", "nans", "1e400", "1e400s", "1e30",
    "9" * 400, f"{'9' * 400}d", "-0.5", "0x10", "1__0", "", " ", "1\n2", "1;2",
)  # fmt: skip
LARGEST = 1e9
NUMBERS = (click.types.FloatParamType, click.types.IntParamType, Duration)


def options() -> Iterator[tuple[str, click.Option]]:
    for path, command in all_commands().items():
        for one in command.params:
            if isinstance(one, click.Option) and isinstance(one.type, NUMBERS):
                yield f"{' '.join(path)} {one.opts[-1]}", one


OPTIONS = dict(options())


@pytest.mark.parametrize("name", OPTIONS)
def test_what_is_no_amount_is_refused(name: str) -> None:
    option = OPTIONS[name]
    context = click.Context(click.Command(name))
    for amount in AMOUNTS:
        try:
            taken = option.process_value(context, amount)
        except click.BadParameter:
            continue
        assert math.isfinite(taken) and 0 <= taken <= LARGEST, (amount[:20], taken)


def test_there_are_such_options() -> None:
    assert {"status --watch", "agent release-driver --timeout", "run --wait"} <= OPTIONS.keys()
