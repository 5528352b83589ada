"""Ending the embedded server."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from canhazgpu.ledger.embedded.directory import ServerDirectory, listener_pid
from canhazgpu.ledger.embedded.start import is_running, start_lock_held

_POLL_S = 0.005


def stop_server(place: ServerDirectory, wait_s: float) -> bool:
    """Ask the server to save and end; return whether there was one.

    Raises `StoreError` when it has not ended within `wait_s`: it is never killed.
    """
    if not place.exists():
        return False
    deadline = time.monotonic() + wait_s
    try:
        with start_lock_held(place, deadline):
            return is_running(place) and _terminate(place, deadline)
    except PermissionError as exc:
        raise place.unusable_error(f"only {place.owner_name()} may stop its server") from exc


def _terminate(place: ServerDirectory, deadline: float) -> bool:
    pid = listener_pid(place.socket) or listener_pid(place.starting_socket) or _recorded_pid(place)
    if pid is None:
        raise place.unusable_error("its server runs, and its process cannot be seen from here")
    # SIGTERM is the polite way: the server writes its file out and leaves.
    os.kill(pid, signal.SIGTERM)
    while is_running(place):
        if time.monotonic() > deadline:
            raise place.unusable_error(f"its server, process {pid}, does not end")
        time.sleep(_POLL_S)
    place.socket.unlink(missing_ok=True)
    place.starting_socket.unlink(missing_ok=True)
    return True


def _recorded_pid(place: ServerDirectory) -> int | None:
    """Return the recorded process if it is the server still: it works in its own directory."""
    try:
        pid = int(place.pid_file.read_text("ascii"))
        program = Path(f"/proc/{pid}/exe").readlink().name
        same = Path(f"/proc/{pid}/cwd").samefile(place.directory)
    except (OSError, ValueError):
        return None
    return pid if same and ("redis" in program or "valkey" in program) else None
