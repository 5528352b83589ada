"""Each short option means one thing, wherever it is."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest
from command_tree import all_commands

SHORT = {
    "--gpu-ids": "-G",
    "--duration": "-d",
    "--timeout": "-t",
    "--note": "-n",
    "--wait": "-w",
    "--short": "-s",
    "--json": "-j",
}
"""By the long option; `--gpus` has one where GPUs are requested."""
COUNTED = {("run",): "-g", ("reserve",): "-g"}


def options() -> Iterator[tuple[tuple[str, ...], click.Option]]:
    for path, command in all_commands().items():
        for one in command.params:
            if isinstance(one, click.Option):
                yield path, one


@pytest.mark.parametrize(("path", "option"), list(options()), ids=str)
def test_a_long_option_has_its_short_one(path: tuple[str, ...], option: click.Option) -> None:
    for long in option.opts:
        short = COUNTED.get(path) if long == "--gpus" else SHORT.get(long)
        assert short is None or short in option.opts


def test_no_command_has_a_short_option_twice() -> None:
    seen: set[tuple[tuple[str, ...], str]] = set()
    for path, option in options():
        for name in (*option.opts, *option.secondary_opts):
            assert (path, name) not in seen
            seen.add((path, name))


@pytest.mark.parametrize("name", ["run", "reserve"])
def test_the_help_says_that_slurms_count_is_another_option(name: str) -> None:
    command = all_commands()[name,]
    context = click.Context(command, info_name=name)
    described = {
        text
        for one in command.params
        if "-G" in one.opts
        for text in one.get_help_record(context) or ()
    }

    assert any("Slurm's -G is a count: here that is -g" in text for text in described)
