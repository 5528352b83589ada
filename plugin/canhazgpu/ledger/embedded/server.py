"""The private server of ``store.url = "embedded"``: started on demand, used through a Unix socket.

If the server already runs, `ensure_running` checks its directory, connects once, and reads the
secret if the caller wants to write. It then takes no lock, starts no process and imports nothing
beyond the standard library. Everybody on the node may connect and read the ledger. Changing it
needs the secret, which only the owner of the directory can read.
"""

from __future__ import annotations

import math
from dataclasses import field

from canhazgpu.errors import StoreError
from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.ledger.embedded.directory import WRITER, ServerDirectory, is_listening, listener_pid

STOP_LIMIT_S = 10.0


@dataclass(frozen=True, slots=True)
class ServerLogin:
    """The socket and the credentials for it; readers need none."""

    socket: str
    username: str | None = None
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """The state of a server; `pid` is None if it runs in another pid namespace."""

    running: bool
    pid: int | None
    socket: str
    log: str


def ensure_running(
    path: str, *, write: bool, wait_s: float, start_limit_s: float = math.inf
) -> ServerLogin:
    """Start the directory's server if it does not run; return how to connect to it.

    The start may take `start_limit_s`, at most `START_LIMIT_S` of start.py, and `wait_s` besides.
    Raises `ConfigError` if the path is too long for a socket. Raises `StoreError` if the directory
    is unsafe, if the caller may not start the server or not write to it, and if the start fails.
    """
    directory = ServerDirectory.at(path)
    if not (directory.exists() and is_listening(directory.socket)):
        _start(directory, write, wait_s, start_limit_s)
    if not write:
        return ServerLogin(str(directory.socket))
    return ServerLogin(str(directory.socket), WRITER, _read_secret(directory))


def status(path: str) -> ServerStatus:
    """Return the state of the directory's server; starts nothing and needs no privileges."""
    directory = ServerDirectory.at(path)
    running = directory.exists() and is_listening(directory.socket)
    pid = listener_pid(directory.socket) if running else None
    return ServerStatus(running, pid, str(directory.socket), str(directory.log))


def stop(path: str, wait_s: float = STOP_LIMIT_S) -> bool:
    """Stop the directory's server, which saves its data; return whether one ran."""
    from canhazgpu.ledger.embedded.stop import stop_server  # noqa: PLC0415 - rarely needed

    return stop_server(ServerDirectory.at(path), wait_s)


def _start(directory: ServerDirectory, write: bool, wait_s: float, limit_s: float) -> None:
    from canhazgpu.ledger.embedded.start import may_start, start_server  # noqa: PLC0415 - rare

    if may_start(directory):
        start_server(directory, wait_s, limit_s)
    elif write:
        raise _not_owner_error(directory)
    else:
        raise StoreError(
            f"the embedded store in {directory.path} is not running",
            next_step=f"'canhazgpu status', run by {directory.owner_name()}, starts it",
        )


def _not_owner_error(directory: ServerDirectory) -> StoreError:
    return StoreError(
        f"writing to the ledger in {directory.path} needs root (or the owner of the directory)",
        next_step="",
    )


def _read_secret(directory: ServerDirectory) -> str:
    try:
        return directory.secret.read_text("utf-8").strip()
    except PermissionError as exc:
        raise _not_owner_error(directory) from exc
    except (OSError, UnicodeDecodeError) as exc:
        raise StoreError(
            f"the secret of the embedded store, {directory.secret}, cannot be read",
            next_step=f"remove it, and end the process that {directory.pid_file} names: the next"
            f" command as {directory.owner_name()} starts a server with a new one",
        ) from exc
