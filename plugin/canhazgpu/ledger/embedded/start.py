"""Starting the embedded server: one at a time, once, and apart from the process that asked.

Two locks keep it to one server. ``start.lock`` admits one starter at a time. ``server.lock`` is
handed to the server as an open file, so that the kernel frees it the moment that the server is gone
and not before: neither a stale pid nor a deleted socket can lead to two servers on one data set.

The server listens at ``starting.sock`` first, which is renamed to ``server.sock`` when it has read
its data: whoever can connect there finds it ready.
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
from canhazgpu.ledger.embedded.binary import find_server
from canhazgpu.ledger.embedded.directory import DIRECTORY_MODE, ServerDirectory, is_listening
from canhazgpu.ledger.embedded.ping import answers_ping
from canhazgpu.ledger.embedded.server_conf import prepare_secret, write_config

START_LIMIT_S = 10.0
"""Longest time from the server's start to its first answer, reading its data included."""
_POLL_S = 0.005
_LOG_LINES = 4


def may_start(place: ServerDirectory) -> bool:
    """Say whether the caller owns the directory, or could make it."""
    try:
        return place.directory.lstat().st_uid == os.geteuid()
    except FileNotFoundError:
        nearest = next(parent for parent in place.directory.parents if parent.exists())
        return os.access(nearest, os.W_OK | os.X_OK)


def start_server(place: ServerDirectory, wait_s: float) -> None:
    """Return when a server listens at the place's socket, whoever started it."""
    deadline = time.monotonic() + wait_s + START_LIMIT_S
    try:
        _make_directory(place)
        with start_lock_held(place, deadline):
            if not is_listening(place.socket):
                _start_or_adopt(place, deadline)
    except OSError as exc:
        name = f" ({exc.filename})" if exc.filename else ""
        raise StoreError(
            f"cannot start the embedded store in {place.directory}: {exc.strerror}{name}"
        ) from exc


@contextmanager
def start_lock_held(place: ServerDirectory, deadline: float) -> Iterator[None]:
    """Be the only one who starts or stops the server; others wait until the deadline."""
    lock = _open_lock(place.start_lock)
    try:
        while not _try_lock(lock):
            if time.monotonic() > deadline:
                raise StoreError(
                    f"another process has been starting or stopping the embedded store in"
                    f" {place.directory} for too long; it holds {place.start_lock.name}"
                )
            time.sleep(_POLL_S)
        yield
    finally:
        os.close(lock)


def is_running(place: ServerDirectory) -> bool:
    """Say whether a server holds its lock. Only for whoever is `start_lock_held`."""
    lock = _open_lock(place.server_lock)
    try:
        return not _try_lock(lock)
    finally:
        os.close(lock)


def _start_or_adopt(place: ServerDirectory, deadline: float) -> None:
    if not _adopt_running(place, deadline):
        _start_new(place, deadline)
    place.starting_socket.rename(place.socket)


def _adopt_running(place: ServerDirectory, deadline: float) -> bool:
    """Wait for a server whose starter died before it was ready, or that is just ending."""
    if not is_running(place):
        return False
    if not _wait_until_ready(place, deadline) and is_running(place):
        raise StoreError(
            f"the embedded server in {place.directory} runs and does not answer; end the process"
            f" that {place.pid_file.name} names, and the next command starts a new one"
        )
    return is_running(place)


def _start_new(place: ServerDirectory, deadline: float) -> None:
    log_start = _log_size(place)
    _spawn(place)
    if not _wait_until_ready(place, deadline) and truncate_damaged_tail(
        place, _log_since(place, log_start)
    ):
        _spawn(place)
        _wait_until_ready(place, deadline)
    if not answers_ping(place.starting_socket):
        raise _start_error(place, log_start)


def _wait_until_ready(place: ServerDirectory, deadline: float) -> bool:
    """Wait for the server's first answer; False when it died or the deadline passed."""
    while not answers_ping(place.starting_socket):
        if time.monotonic() > deadline or not is_running(place):
            return False
        time.sleep(_POLL_S)
    return True


def _start_error(place: ServerDirectory, log_start: int) -> StoreError:
    state = "is still loading its data" if is_running(place) else "does not start"
    lines = _log_since(place, log_start).splitlines()[-_LOG_LINES:]
    return StoreError(
        f"the embedded server in {place.directory} {state}; {place.log} ends: {' | '.join(lines)}"
    )


def _spawn(place: ServerDirectory) -> None:
    """Start the server as a daemon that keeps of the caller nothing but its own lock."""
    server = find_server()
    write_config(place, prepare_secret(place))
    place.socket.unlink(missing_ok=True)
    place.starting_socket.unlink(missing_ok=True)
    lock = _open_lock(place.server_lock)
    log = os.open(place.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    try:
        _try_lock(lock)
        # It moves a child to a session of its own and returns at once, or exits with a complaint
        # about its configuration.
        subprocess.run(
            [server, place.config],
            check=False,
            cwd=place.directory,
            env={"LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            umask=0o077,
            pass_fds=(lock,),
            timeout=START_LIMIT_S,
        )
    except subprocess.TimeoutExpired as exc:
        raise StoreError(f"{server} does not go into the background") from exc
    finally:
        os.close(log)
        os.close(lock)


def _make_directory(place: ServerDirectory) -> None:
    """Make what is missing of the path, and refuse one in which others could replace it."""
    missing = [path for path in (place.directory, *place.directory.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(DIRECTORY_MODE, exist_ok=True)
        # Whatever the umask: users must be able to reach the socket.
        path.chmod(DIRECTORY_MODE)
    place.exists()
    for parent in place.directory.resolve().parents:
        found = parent.stat()
        if found.st_uid not in (0, os.geteuid()) or found.st_mode & 0o1002 == 0o0002:
            raise place.unusable_error(f"others may write to {parent}")


def _open_lock(path: Path) -> int:
    # For the owner alone: whoever can open it can hold it.
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _try_lock(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _log_size(place: ServerDirectory) -> int:
    return place.log.stat().st_size if place.log.exists() else 0


def _log_since(place: ServerDirectory, start: int) -> str:
    return place.log.read_bytes()[start:].decode(errors="replace")
