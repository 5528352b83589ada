"""What the agent may know of the process that asks: its terminal, and some of its variables."""

import _json
import posix

from canhazgpu.agent.wire.caller_variables import VARIABLES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

REQUEST = posix.urandom(8).hex()
"""Tells this request from those of other programs that the same process executes: a run's command
may be another run."""


def call_parameters(arguments: "list[str]") -> str:
    """Return the parameters of the call, as JSON."""
    quoted = _json.encode_basestring_ascii
    variables = ",".join(
        f"{quoted(name)}:{quoted(value)}" for name, value in variables_here() if "\0" not in value
    )
    words = ",".join(map(quoted, arguments))
    return (
        f'{{"arguments":[{words}],"terminal":{terminal()},"variables":{{{variables}}},'
        f'"request":"{REQUEST}"}}'
    )


def variables_here() -> "Iterator[tuple[str, str]]":
    """Yield the variables of this process that the agent may know."""
    for name in VARIABLES:
        value = posix.environ.get(name.encode())
        if value is not None:
            yield name, value.decode("utf-8", "replace")


def terminal() -> str:
    """Return where the output goes, as JSON."""
    reads, writes, errors = (is_terminal(descriptor) for descriptor in (0, 1, 2))
    told = [
        f'"reads_terminal":{json_of(reads and writes)}',
        f'"errors_on_terminal":{json_of(errors)}',
    ]
    if writes:
        columns, lines = terminal_size()
        told += [f'"width":{columns}', f'"height":{lines}']
    return "{" + ",".join(told) + "}"


def json_of(flag: bool) -> str:
    """Return the flag as JSON."""
    return "true" if flag else "false"


def is_terminal(descriptor: int) -> bool:
    """Return whether the descriptor is open, and a terminal."""
    try:
        return posix.isatty(descriptor)
    except OSError:
        return False


def terminal_size() -> "tuple[int, int]":
    """Return columns and lines, as `shutil.get_terminal_size` does."""
    try:
        found = tuple(posix.get_terminal_size(1))
    except OSError:
        found = (0, 0)
    named = [posix.environ.get(name, b"") for name in (b"COLUMNS", b"LINES")]
    columns, lines = (
        int(text) if text.isdigit() and int(text) else size
        for text, size in zip(named, found, strict=True)
    )
    return min(columns or 80, 10_000), min(lines or 24, 10_000)
