"""The agent's directory in the state directory: its sockets, and the lock of the one agent."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from canhazgpu.agent.agent_socket import DIRECTORY, IN_STATE_DIR
from canhazgpu.errors import NodeStateError
from canhazgpu.node.state_files import open_directory_to_users, try_file_lock

HOOKS_SOCKET = "hooks.sock"
SCANNER_SOCKET = "scanner.sock"
LOCK = ".lock"
BACKLOG = 512
MAX_ADDRESS_BYTES = 100


def agent_directory(state_dir: Path) -> Path:
    """Return the directory of the agent's sockets."""
    return state_dir / DIRECTORY


def people_socket(state_dir: Path) -> Path:
    """Return the socket at which the agent answers everybody."""
    return state_dir / IN_STATE_DIR


def lock_agent(state_dir: Path, held: int | None = None) -> int:
    """Make the directory; return a descriptor of the lock that only one agent has.

    `held` is a descriptor of a lock that this process has; it is closed where it is another one.
    Raises `NodeStateError` where another agent runs, or the directory cannot be used.
    """
    directory = agent_directory(state_dir)
    try:
        open_directory_to_users(state_dir)
        open_directory_to_users(directory)
        if held is not None:
            if _is_open_at(held, directory / LOCK):
                return held
            os.close(held)
        lock = try_file_lock(directory / LOCK)
    except OSError as exc:
        raise NodeStateError(
            f"cannot use {exc.filename or directory} for the agent's sockets: {exc.strerror}"
        ) from exc
    if lock is None:
        raise NodeStateError(
            f"another agent runs for this node, with its sockets in {directory}:"
            " 'canhazgpu agent status' shows it"
        )
    return lock


def _is_open_at(descriptor: int, path: Path) -> bool:
    with contextlib.suppress(OSError):
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    return False


def listen(path: Path, mode: int) -> socket.socket:
    """Return a listening socket at the path, in the place of what is there; raises `OSError`.

    Nobody can connect before it has its mode.
    """
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        with short_address(draft) as address:
            made.bind(address)
        draft.chmod(mode)
        made.listen(BACKLOG)
        made.setblocking(False)
        draft.replace(path)
    except OSError:
        made.close()
        draft.unlink(missing_ok=True)
        raise
    return made


@contextlib.contextmanager
def short_address(path: Path) -> Iterator[str]:
    """Give an address for the path that is short enough, whatever the path's length (unix(7))."""
    if len(os.fsencode(path)) <= MAX_ADDRESS_BYTES:
        yield str(path)
        return
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)
