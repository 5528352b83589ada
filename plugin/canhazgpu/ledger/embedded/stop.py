"""Stop the embedded server."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from canhazgpu.ledger.embedded.directory import ServerDirectory, listener_pid
from canhazgpu.ledger.embedded.start import is_running, start_lock_held

_POLL_S = 0.005


def stop_server(directory: ServerDirectory, wait_s: float) -> bool:
    """Ask the server to save its data and end; return whether one ran.

    Raises `StoreError` if it has not ended within `wait_s`. It is never killed.
    """
    if not directory.exists():
        return False
    deadline = time.monotonic() + wait_s
    try:
        with start_lock_held(directory, deadline):
            return is_running(directory) and _terminate(directory, deadline)
    except PermissionError as exc:
        raise directory.unusable_error(
            f"only {directory.owner_name()} may stop its server"
        ) from exc


def _terminate(directory: ServerDirectory, deadline: float) -> bool:
    pid = (
        listener_pid(directory.socket)
        or listener_pid(directory.starting_socket)
        or _recorded_pid(directory)
    )
    if pid is None:
        raise directory.unusable_error("its server runs, and its process cannot be seen from here")
    # At SIGTERM the server saves its data and ends.
    os.kill(pid, signal.SIGTERM)
    while is_running(directory):
        if time.monotonic() > deadline:
            raise directory.unusable_error(f"its server, process {pid}, does not end")
        time.sleep(_POLL_S)
    directory.socket.unlink(missing_ok=True)
    directory.starting_socket.unlink(missing_ok=True)
    return True


def _recorded_pid(directory: ServerDirectory) -> int | None:
    """Return the pid of the pid file if its program and working directory are the server's."""
    try:
        pid = int(directory.pid_file.read_text("ascii"))
        program = Path(f"/proc/{pid}/exe").readlink().name
        same = Path(f"/proc/{pid}/cwd").samefile(directory.path)
    except (OSError, ValueError):
        return None
    return pid if same and ("redis" in program or "valkey" in program) else None
