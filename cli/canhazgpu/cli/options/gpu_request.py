"""The options of `run` and `reserve` that say which GPUs are requested."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from canhazgpu.cli.options.common import memory_threshold_option
from canhazgpu.cli.options.param_types import GPU_IDS, MIG_PROFILE, WAIT_TIME
from canhazgpu.cli.options.value_completion import complete_gpu_ids
from canhazgpu.errors import InputError
from canhazgpu.service.grants import GpuRequest

CommandT = TypeVar("CommandT", bound=Callable[..., Any])
MAX_NOTE_LENGTH = 200
"""Longest note, in characters."""
DEFAULT_COUNT = 1
MAX_COUNT = 4096
"""More than any node has."""


_OPTIONS = (
    click.option(
        "-g",
        "--gpus",
        type=click.IntRange(1, MAX_COUNT),
        metavar="N",
        help="How many GPUs.  [default: 1]",
    ),
    click.option(
        "-G",
        "--gpu-ids",
        type=GPU_IDS,
        default=(),
        metavar="IDS",
        shell_complete=complete_gpu_ids,
        help="Exactly these GPUs: indices (1,3 or 0-3), MIG instances (0:1), UUIDs or their"
        " beginnings. Slurm's -G is a count: here that is -g.",
    ),
    click.option(
        "--profile",
        type=MIG_PROFILE,
        default="",
        metavar="NAME",
        help="MIG instances of this profile, as 1g.10gb, in place of whole GPUs.",
    ),
    memory_threshold_option,
    click.option("--nonblock", is_flag=True, help="Fail at once where the GPUs are not free."),
    click.option(
        "-w",
        "--wait",
        type=WAIT_TIME,
        metavar="TIME",
        help="Wait so long at most, as 90s, 30m or 2h, or forever, whatever is in the way."
        "  [default: while only reservations are]",
    ),
    click.option("-n", "--note", metavar="TEXT", help="Shown to everybody beside the reservation."),
    click.option(
        "--choice",
        type=click.Choice(["lru", "affinity"]),
        help="Which free GPUs: the least recently used, or your last ones.  [default: run.choice]",
    ),
    click.option(
        "--force",
        is_flag=True,
        help="Take GPUs that somebody uses without reservation, too.",
    ),
    click.option(
        "--outside-job",
        is_flag=True,
        help="Inside a Slurm job: other GPUs than the job's, which Slurm does not count.",
    ),
)


def gpu_request_options(command: CommandT) -> CommandT:
    """Add the options that say which GPUs are requested."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def parse_gpu_request(options: dict[str, Any]) -> GpuRequest:
    """Return the request; raises `InputError` if the options contradict each other."""
    gpus, selectors = options["gpus"], options["gpu_ids"]
    if selectors and gpus not in (None, len(selectors)):
        raise InputError(f"--gpus {gpus} and {len(selectors)} GPUs in --gpu-ids: give one of them")
    if selectors and options["profile"]:
        raise InputError("--profile and --gpu-ids contradict each other: give one of them")
    if options["nonblock"] and options["wait"] is not None:
        raise InputError("--nonblock and --wait contradict each other: give one of them")
    choice = options["choice"]
    return GpuRequest(
        count=len(selectors) or gpus or DEFAULT_COUNT,
        selectors=selectors,
        wait_s=0.0 if options["nonblock"] else options["wait"],
        affinity=None if choice is None else choice == "affinity",
        force=options["force"],
        note=_parse_note(options),
        memory_threshold_mb=options["memory_threshold"],
        profile=options["profile"],
        outside_job=options["outside_job"],
    )


def _parse_note(options: dict[str, Any]) -> str | None:
    """Return the note, None for none; raises `InputError` if it is too long for a table."""
    note = options["note"]
    if note is not None and len(note) > MAX_NOTE_LENGTH:
        raise InputError(
            f"the note is {len(note)} characters long; accepted: up to {MAX_NOTE_LENGTH}"
        )
    return note or None
