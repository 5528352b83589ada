"""Start the embedded server as a daemon; at most one server runs per directory.

Two locks ensure that. Only the holder of ``start.lock`` starts or stops a server. The server
inherits an open descriptor of ``server.lock``, so the kernel releases that lock exactly when the
server ends. A stale pid file or a deleted socket cannot lead to two servers on the same data.

The server first listens on ``starting.sock``. The starter renames it to ``server.sock`` once the
server has loaded its data, so a client that can connect there finds the server ready.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from canhazgpu.errors import StoreError
from canhazgpu.ledger.embedded.aof_repair import truncate_damaged_tail
from canhazgpu.ledger.embedded.binary import find_server, server_version
from canhazgpu.ledger.embedded.directory import DIRECTORY_MODE, ServerDirectory, is_listening
from canhazgpu.ledger.embedded.ping import answers_ping
from canhazgpu.ledger.embedded.server_conf import prepare_secret, write_config
from canhazgpu.node.state_files import open_new_directory
from canhazgpu.path_presence import may_exist
from canhazgpu.untrusted_directory import refuse_others_above

START_LIMIT_S = 10.0
"""Longest time from the server's start to its first answer; it includes loading the data."""
_POLL_S = 0.005
_LOG_LINES = 4


def may_start(directory: ServerDirectory) -> bool:
    """Return whether the caller owns the directory, or could create it."""
    try:
        return directory.path.lstat().st_uid == os.geteuid()
    except FileNotFoundError:
        nearest = next(parent for parent in directory.path.parents if may_exist(parent))
        return os.access(nearest, os.W_OK | os.X_OK)


def start_server(directory: ServerDirectory, wait_s: float, limit_s: float = START_LIMIT_S) -> None:
    """Start the server unless it runs; return once it listens on its socket.

    It has `limit_s` for that, at most `START_LIMIT_S`, and `wait_s` besides.
    """
    deadline = time.monotonic() + wait_s + min(limit_s, START_LIMIT_S)
    try:
        _make_directory(directory)
        with start_lock_held(directory, deadline):
            if not is_listening(directory.socket):
                _start_or_adopt(directory, deadline)
    except OSError as exc:
        name = f" ({exc.filename})" if exc.filename else ""
        raise StoreError(
            f"cannot start the embedded store in {directory.path}: {exc.strerror}{name}",
            next_step="check owner, mode and free space of store.embedded_dir",
        ) from exc


@contextmanager
def start_lock_held(directory: ServerDirectory, deadline: float) -> Iterator[None]:
    """Hold the start lock inside the block; raise `StoreError` if it is not free by `deadline`."""
    lock = _open_lock(directory.start_lock)
    try:
        while not _try_lock(lock):
            if time.monotonic() > deadline:
                raise StoreError(
                    f"another process has been starting or stopping the embedded store in"
                    f" {directory.path} for too long; it holds {directory.start_lock.name}",
                    next_step=f"'fuser -v {directory.start_lock}' names the process",
                )
            time.sleep(_POLL_S)
        yield
    finally:
        os.close(lock)


def is_running(directory: ServerDirectory) -> bool:
    """Return whether a server holds its lock; call it inside `start_lock_held` only."""
    lock = _open_lock(directory.server_lock)
    try:
        return not _try_lock(lock)
    finally:
        os.close(lock)


def _start_or_adopt(directory: ServerDirectory, deadline: float) -> None:
    if not _adopt_running(directory, deadline):
        _start_new(directory, deadline)
    directory.starting_socket.rename(directory.socket)


def _adopt_running(directory: ServerDirectory, deadline: float) -> bool:
    """Wait for a running server to become ready, or to end; return whether it runs.

    Its starter died before it was ready, or the server is about to end.
    """
    if not is_running(directory):
        return False
    if not _wait_until_ready(directory, deadline) and is_running(directory):
        raise StoreError(
            f"the embedded server in {directory.path} runs and does not answer",
            next_step=f"end the process that {directory.pid_file} names: the next command starts"
            " a new one",
        )
    return is_running(directory)


def _start_new(directory: ServerDirectory, deadline: float) -> None:
    log_start = _log_size(directory)
    _spawn(directory)
    if not _wait_until_ready(directory, deadline) and truncate_damaged_tail(
        directory, _log_since(directory, log_start)
    ):
        _spawn(directory)
        _wait_until_ready(directory, deadline)
    if not answers_ping(directory.starting_socket):
        raise _start_error(directory, log_start)


def _wait_until_ready(directory: ServerDirectory, deadline: float) -> bool:
    """Wait for the server's first answer; return False if it ended or the deadline passed."""
    while not answers_ping(directory.starting_socket):
        if time.monotonic() > deadline or not is_running(directory):
            return False
        time.sleep(_POLL_S)
    return True


def _start_error(directory: ServerDirectory, log_start: int) -> StoreError:
    state = "is still loading its data" if is_running(directory) else "does not start"
    lines = _log_since(directory, log_start).splitlines()[-_LOG_LINES:]
    return StoreError(
        f"the embedded server in {directory.path} {state};"
        f" {directory.log} ends: {' | '.join(lines)}",
        next_step="try again in a moment" if is_running(directory) else "see the whole log",
    )


def _spawn(directory: ServerDirectory) -> None:
    """Start the server as a daemon; it inherits only the descriptor of its lock."""
    server = find_server()
    write_config(directory, prepare_secret(directory), server_version(server))
    directory.socket.unlink(missing_ok=True)
    directory.starting_socket.unlink(missing_ok=True)
    lock = _open_lock(directory.server_lock)
    log = os.open(directory.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    try:
        _try_lock(lock)
        # The server daemonizes: the command returns at once, or fails because of an error in the
        # configuration.
        subprocess.run(
            [server, directory.config],
            check=False,
            cwd=directory.path,
            env={"LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            umask=0o077,
            pass_fds=(lock,),
            timeout=START_LIMIT_S,
        )
    except subprocess.TimeoutExpired as exc:
        raise StoreError(
            f"{server} does not go into the background", next_step=f"see {directory.log}"
        ) from exc
    finally:
        os.close(log)
        os.close(lock)


def _make_directory(directory: ServerDirectory) -> None:
    """Create the missing directories; raise `StoreError` if others could replace one of them."""
    # Before anything is made there, and again: others may have made what was missing.
    _refuse_others_above(directory)
    missing = [path for path in (directory.path, *directory.path.parents) if not may_exist(path)]
    for path in reversed(missing):
        path.mkdir(DIRECTORY_MODE, exist_ok=True)
        # The umask must not keep users from the socket.
        open_new_directory(path)
    directory.exists()
    _refuse_others_above(directory)


def _refuse_others_above(directory: ServerDirectory) -> None:
    try:
        refuse_others_above(directory.path)
    except PermissionError as exc:
        raise directory.unusable_error(f"others may write to {exc.filename}") from exc


def _open_lock(path: Path) -> int:
    # Mode 0600: every process that can open the file can take the lock.
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _try_lock(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _log_size(directory: ServerDirectory) -> int:
    return directory.log.stat().st_size if directory.log.exists() else 0


def _log_since(directory: ServerDirectory, start: int) -> str:
    return directory.log.read_bytes()[start:].decode(errors="replace")
