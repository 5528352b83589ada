"""The options of `status` that choose what it shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from canhazgpu.cli.options.value_completion import (
    complete_list,
    complete_models,
    complete_partitions,
    complete_users,
)
from canhazgpu.service.completion import Completion

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from canhazgpu.gpu.usage import GpuState
    from canhazgpu.status.status_filter import StatusFilter
    from canhazgpu.status.user_filter import User

CommandT = TypeVar("CommandT", bound=Callable[..., Any])

STATES = {
    "available": ("AVAILABLE",),
    "free": ("AVAILABLE",),
    "reserved": ("RESERVED",),
    "unreserved": ("UNRESERVED",),
    "in-use": ("RESERVED", "UNRESERVED"),
    "quarantined": ("QUARANTINED",),
    "unknown": ("UNKNOWN",),
}
"""What --state accepts, with the names of the states in `GpuState`."""


def status_filter_options(command: CommandT) -> CommandT:
    """Add the options; `parse_status_filter` reads them."""
    options = [
        click.option("--free", is_flag=True, help="Show only GPUs that are available."),
        click.option(
            "--state",
            "states",
            metavar="STATE[,...]",
            multiple=True,
            callback=_parse_states,
            shell_complete=complete_states,
            help="Show only GPUs in this state: available, reserved, unreserved (in use WITHOUT"
            " RESERVATION), in-use (either of them), quarantined, unknown.",
        ),
        click.option(
            "--user",
            "users",
            metavar="USER[,...]",
            multiple=True,
            callback=_split_lists,
            shell_complete=complete_users,
            help="Show only GPUs that this user holds or uses, and the user's place in the queue.",
        ),
        click.option(
            "--partition",
            "partitions",
            metavar="NAME[,...]",
            multiple=True,
            callback=_split_lists,
            shell_complete=complete_partitions,
            help="Show only nodes of this Slurm partition.",
        ),
        click.option(
            "--model",
            "models",
            metavar="TEXT[,...]",
            multiple=True,
            callback=_split_lists,
            shell_complete=complete_models,
            help="Show only GPUs that run a model whose name has this text, or are of a product"
            " whose name has it; in any case of letters.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def parse_status_filter(options: dict[str, Any]) -> StatusFilter | None:
    """Return what the options choose, None where none of them is given."""
    states = {*options["states"], *(("available",) if options["free"] else ())}
    users, partitions, models = options["users"], options["partitions"], options["models"]
    if not (states or users or partitions or models):
        return None
    from canhazgpu.status.status_filter import StatusFilter  # noqa: PLC0415 - only with a filter

    return StatusFilter(
        states=_states_of(states),
        users=tuple(map(_user_of, users)),
        partitions=frozenset(partitions),
        models=tuple(models),
    )


def status_filter_text(options: dict[str, Any]) -> str:
    """Return the given options as the command line has them, empty for none."""
    import shlex  # noqa: PLC0415 - only with a filter

    words = ["--me"] if options["mine"] else []
    words += ["--free"] if options["free"] else []
    for name in ("state", "user", "partition", "model"):
        if values := options[f"{name}s"]:
            words += [f"--{name}", ",".join(values)]
    return shlex.join(words)


def complete_states(
    _context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete the last item of a list of states."""
    return complete_list(map(Completion, STATES), incomplete)


def _split_lists(
    _context: click.Context, _parameter: click.Parameter, lists: Sequence[str]
) -> tuple[str, ...]:
    words = [word.strip() for some in lists for word in some.split(",")]
    if lists and not all(words):
        raise click.BadParameter(f"{','.join(lists)!r} has an empty name; accepted: a,b")
    return tuple(dict.fromkeys(words))


def _parse_states(
    context: click.Context, parameter: click.Parameter, lists: Sequence[str]
) -> tuple[str, ...]:
    words = _split_lists(context, parameter, lists)
    normal = {word: word.lower().replace("_", "-").replace(" ", "-") for word in words}
    for word, state in normal.items():
        if state not in STATES:
            from canhazgpu.status.suggestion import suggestion  # noqa: PLC0415 - only a misspelling

            raise click.BadParameter(f"there is no state {word!r}; {suggestion(state, STATES)}")
    return tuple(dict.fromkeys(normal.values()))


def _states_of(words: set[str]) -> frozenset[GpuState]:
    from canhazgpu.gpu.usage import GpuState  # noqa: PLC0415 - only with a filter

    return frozenset(GpuState[name] for word in words for name in STATES[word])


def _user_of(text: str) -> User:
    """Return the user of a name, or of a uid that is no name, as ps(1) reads them."""
    import pwd  # noqa: PLC0415 - only with --user

    from canhazgpu.status.user_filter import User  # noqa: PLC0415

    try:
        return User(pwd.getpwnam(text).pw_uid, text)
    except (KeyError, ValueError):
        pass
    if not (text.isascii() and text.isdecimal()):
        return User(None, text)
    try:
        return User(int(text), pwd.getpwuid(int(text)).pw_name)
    except (KeyError, OverflowError):
        return User(int(text), text)
