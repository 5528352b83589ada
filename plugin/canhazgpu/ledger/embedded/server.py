"""The private server of ``store.url = "embedded"``: started on demand, used through a Unix socket.

Where the server already runs, `ensure_running` looks at its directory, connects once to see that someone
listens, and for writing reads the secret: no lock, no process and no import beyond the standard
library. Everybody on the node may connect and read the ledger; changing it needs the secret, which
belongs to the owner of the directory alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from canhazgpu.errors import StoreError
from canhazgpu.ledger.embedded.directory import WRITER, ServerDirectory, is_listening, listener_pid

STOP_LIMIT_S = 10.0


@dataclass(frozen=True, slots=True)
class ServerLogin:
    """How to connect: where, and as whom; readers need no login."""

    socket: str
    username: str | None = None
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """What is seen of a server; `pid` is None for one of another container."""

    running: bool
    pid: int | None
    socket: str
    log: str


def ensure_running(path: str, *, write: bool, wait_s: float) -> ServerLogin:
    """Return the way into the directory's server, which is started when it does not run.

    `wait_s` adds to the time that starting it may take. Raises `ConfigError` for a directory that
    cannot hold a socket, `StoreError` when the server cannot be used: not safe, not ours to start,
    not ours to write to, or failing to start.
    """
    directory = ServerDirectory.at(path)
    if not (directory.exists() and is_listening(directory.socket)):
        _start(directory, write, wait_s)
    if not write:
        return ServerLogin(str(directory.socket))
    return ServerLogin(str(directory.socket), WRITER, _read_secret(directory))


def status(path: str) -> ServerStatus:
    """Say whether the directory's server runs; starts nothing and needs no rights."""
    directory = ServerDirectory.at(path)
    running = directory.exists() and is_listening(directory.socket)
    pid = listener_pid(directory.socket) if running else None
    return ServerStatus(running, pid, str(directory.socket), str(directory.log))


def stop(path: str, wait_s: float = STOP_LIMIT_S) -> bool:
    """End the directory's server, which saves what it holds; return whether there was one."""
    from canhazgpu.ledger.embedded.stop import stop_server  # noqa: PLC0415 - the rare path

    return stop_server(ServerDirectory.at(path), wait_s)


def _start(directory: ServerDirectory, write: bool, wait_s: float) -> None:
    from canhazgpu.ledger.embedded.start import may_start, start_server  # noqa: PLC0415 - rare

    if may_start(directory):
        start_server(directory, wait_s)
    elif write:
        raise _not_owner_error(directory)
    else:
        raise StoreError(
            f"the embedded store in {directory.path} is not running; the next job's hook starts"
            f" it, and so does 'canhazgpu status' run by {directory.owner_name()}"
        )


def _not_owner_error(directory: ServerDirectory) -> StoreError:
    return StoreError(
        f"writing to the ledger in {directory.path} needs root (or the owner of the directory)"
    )


def _read_secret(directory: ServerDirectory) -> str:
    try:
        return directory.secret.read_text("utf-8").strip()
    except PermissionError as exc:
        raise _not_owner_error(directory) from exc
    except (OSError, UnicodeDecodeError) as exc:
        raise StoreError(
            f"the secret of the embedded store, {directory.secret}, cannot be read; a new one is made"
            " when the server is stopped and started again"
        ) from exc
