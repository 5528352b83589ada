"""What GPUs `run` and `reserve` are asked for: their common options, and what these mean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from canhazgpu.cli.completion_values import complete_gpu_ids
from canhazgpu.cli.options import memory_threshold_option
from canhazgpu.cli.param_types import DURATION, GPU_IDS
from canhazgpu.errors import InputError

if TYPE_CHECKING:
    from canhazgpu.config import Config
    from canhazgpu.gpu.ids import Selector

T = TypeVar("T", bound=Callable[..., Any])
MAX_NOTE = 200
DEFAULT_COUNT = 1


@dataclass(frozen=True, slots=True)
class Wanted:
    """The GPUs asked for: so many, or exactly these; and how long to wait for them.

    `wait_s` is None for as long as it takes, 0 for not at all.
    """

    count: int
    selectors: tuple[Selector, ...] = ()
    wait_s: float | None = None
    affinity: bool = False
    force: bool = False


def acquire_options(command: T) -> T:
    """Add the options by which people say what GPUs they want."""
    options = [
        click.option(
            "--gpus", type=click.IntRange(min=1), metavar="N", help="How many GPUs.  [default: 1]"
        ),
        click.option(
            "--gpu-ids",
            type=GPU_IDS,
            default=(),
            metavar="IDS",
            shell_complete=complete_gpu_ids,
            help="Exactly these GPUs: indices (1,3 or 0-3), UUIDs or their beginnings.",
        ),
        memory_threshold_option,
        click.option("--nonblock", is_flag=True, help="Fail at once where the GPUs are not free."),
        click.option(
            "--wait",
            type=DURATION,
            metavar="TIME",
            help="Wait so long at most, as 90s, 30m or 2h.  [default: as long as it takes]",
        ),
        click.option("--note", metavar="TEXT", help="Shown to everybody beside the reservation."),
        click.option(
            "--choice",
            type=click.Choice(["lru", "affinity"]),
            help="Which free GPUs: the least recently used, or your last ones."
            "  [default: run.choice]",
        ),
        click.option(
            "--force",
            is_flag=True,
            help="Take GPUs that somebody uses without reservation, too.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def wanted_of(config: Config, options: dict[str, Any]) -> Wanted:
    """Return what the options ask for; raises `InputError` where they contradict each other."""
    gpus, selectors = options["gpus"], options["gpu_ids"]
    if selectors and gpus not in (None, len(selectors)):
        raise InputError(f"--gpus {gpus} and {len(selectors)} GPUs in --gpu-ids: give one of them")
    if options["nonblock"] and options["wait"] is not None:
        raise InputError("--nonblock and --wait contradict each other: give one of them")
    return Wanted(
        count=len(selectors) or gpus or DEFAULT_COUNT,
        selectors=selectors,
        wait_s=0.0 if options["nonblock"] else options["wait"],
        affinity=(options["choice"] or config.run.choice) == "affinity",
        force=options["force"],
    )


def note_of(options: dict[str, Any]) -> str | None:
    """Return the note, of a length that a table can bear."""
    note = options["note"]
    if note is not None and len(note) > MAX_NOTE:
        raise InputError(f"the note is {len(note)} characters long; accepted: up to {MAX_NOTE}")
    return note or None


def refuse_through_slurm(wanted: Wanted) -> None:
    """Refuse what Slurm would not see to where it gives the GPUs."""
    if wanted.selectors or wanted.force or wanted.wait_s is not None:
        raise InputError(
            "Slurm picks the GPUs of this host and the order (run.via_slurm): use --gpus, without"
            " --force, --nonblock and --wait"
        )
