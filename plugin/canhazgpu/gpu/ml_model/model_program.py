"""One program that runs models, as the table of programs describes it."""

from __future__ import annotations

from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.gpu.ml_model.command_line import ONE_VALUE_EACH, OptionTypes


@dataclass(frozen=True, slots=True)
class ModelProgram:
    """One program; `commands` are its names with the subcommands for which the entry holds.

    `options` name the model, the most specific first. `model_position` counts the positional
    arguments after the subcommand; None: none of them is the model. The values of the options
    `model_arguments` are settings, ``pretrained=NAME,dtype=float`` or JSON; an empty name stands
    for the positional arguments. `settings` are keys of ``key=NAME`` arguments. What any program
    may have, `MODEL_OPTIONS` and `MODEL_SETTINGS`, comes after all these.
    """

    source: str
    commands: tuple[tuple[str, ...], ...]
    model_position: int | None = None
    option_types: OptionTypes = ONE_VALUE_EACH
    options: tuple[str, ...] = ()
    model_arguments: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()


def commands(programs: str, subcommands: str = "") -> tuple[tuple[str, ...], ...]:
    """Return each program with each subcommand; words are separated by blanks, ``serve:gradio``."""
    return tuple(
        (program, *(subcommand.split(":") if subcommand else ()))
        for program in programs.split()
        for subcommand in (subcommands.split() or [""])
    )


def option_types(switches: str = "", lists: str = "", valued: str = "") -> OptionTypes:
    """Return the types of a program's options, given as words."""
    return OptionTypes(
        frozenset(switches.split()), frozenset(lists.split()), frozenset(valued.split())
    )
