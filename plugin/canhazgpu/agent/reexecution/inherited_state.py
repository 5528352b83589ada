"""What an agent hands on to the program that it becomes: descriptors, and what they are for.

A file in memory has it, as JSON; a variable names its descriptor. It grows by addition alone: the
other program may be of an earlier or a later release, and takes what it understands.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import asdict, field
from typing import Any

from canhazgpu.frozen_dataclass import dataclass

VARIABLE = "AGENT_HANDED_ON"
"""The pid that it is for, a colon, and the descriptor."""
MANAGERS_VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
VARIABLES = (VARIABLE, *MANAGERS_VARIABLES)
"""What is for this process alone, and not for its children."""
FIRST_OF_MANAGER = 3
"""The first descriptor that a service manager passes: sd_listen_fds(3)."""


@dataclass(frozen=True, slots=True)
class InheritedConnection:
    """A connection whose request has not arrived as a whole; `received` is in hexadecimal."""

    descriptor: int
    door: str
    received: str


@dataclass(frozen=True, slots=True)
class InheritedChild:
    """A handler that goes on; `ends_at` is in seconds of the machine's monotonic clock."""

    pid: int
    door: str
    user: int | str
    what: str
    ends_at: float
    is_killed: bool = False


@dataclass(frozen=True, slots=True)
class InheritedState:
    """All of it; nothing for an agent that was started.

    `sockets` are listening ones, by their path; of those the service manager's are `managed`.
    `reports` are both ends of the handlers' pipe.
    """

    lock: int | None = None
    sockets: Mapping[str, int] = field(default_factory=dict)
    managed: tuple[str, ...] = ()
    reports: tuple[int, ...] = ()
    connections: tuple[InheritedConnection, ...] = ()
    children: tuple[InheritedChild, ...] = ()
    history: Mapping[str, Any] = field(default_factory=dict)

    @property
    def descriptors(self) -> Iterator[int]:
        """All descriptors."""
        if self.lock is not None:
            yield self.lock
        yield from self.sockets.values()
        yield from self.reports
        yield from (one.descriptor for one in self.connections)


def pass_on_state(what: InheritedState, environ: MutableMapping[str, str]) -> int:
    """Write it, for this very process after its execve(2); return the descriptor of the file.

    The descriptors that are named stay open then. Raises `OSError`.
    """
    file = os.memfd_create("canhazgpu-agent")
    os.write(file, json.dumps(asdict(what)).encode())
    for descriptor in (file, *what.descriptors):
        os.set_inheritable(descriptor, True)
    environ[VARIABLE] = f"{os.getpid()}:{file}"
    return file


def undo_pass_on(what: InheritedState, file: int) -> None:
    """Undo `pass_on_state`: this process stays what it is."""
    os.close(file)
    for descriptor in what.descriptors:
        os.set_inheritable(descriptor, False)


def take_inherited_state(environ: MutableMapping[str, str]) -> InheritedState:
    """Return what was handed on to this process; the variable is removed."""
    file = _own_file(environ.pop(VARIABLE, ""))
    if file is None:
        sockets = _sockets_of_manager(environ)
        return InheritedState(sockets=sockets, managed=tuple(sockets))
    try:
        found = _parsed(_content(file))
    finally:
        os.close(file)
    for descriptor in found.descriptors:
        with contextlib.suppress(OSError):
            os.set_inheritable(descriptor, False)
    return found


def _own_file(text: str) -> int | None:
    pid, _, file = text.partition(":")
    return int(file) if pid == str(os.getpid()) and file.isdecimal() else None


def _content(file: int) -> Mapping[str, Any]:
    try:
        found = json.loads(os.pread(file, os.fstat(file).st_size, 0))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _parsed(found: Mapping[str, Any]) -> InheritedState:
    """Return what of it has a form that this release knows: one part does not spoil another."""

    def taken(name: str, read: Callable[[Any], Any]) -> Any:
        try:
            return read(found[name])
        except (AttributeError, KeyError, TypeError, ValueError):
            return None

    return InheritedState(
        taken("lock", int),
        taken("sockets", lambda them: {str(path): int(one) for path, one in them.items()}) or {},
        taken("managed", lambda them: tuple(map(str, them))) or (),
        taken("reports", lambda them: tuple(map(int, them))) or (),
        taken("connections", lambda them: tuple(map(_connection, them))) or (),
        taken("children", lambda them: tuple(map(_child, them))) or (),
        taken("history", dict) or {},
    )


def _connection(found: Mapping[str, Any]) -> InheritedConnection:
    return InheritedConnection(int(found["descriptor"]), str(found["door"]), str(found["received"]))


def _child(found: Mapping[str, Any]) -> InheritedChild:
    user = found["user"]
    return InheritedChild(
        int(found["pid"]),
        str(found["door"]),
        user if isinstance(user, int) else str(user),
        str(found["what"]),
        float(found["ends_at"]),
        found.get("is_killed") is True,
    )


def _sockets_of_manager(environ: MutableMapping[str, str]) -> dict[str, int]:
    """Return the sockets that the service manager has opened for this process, by their path."""
    pid, count, _ = (environ.pop(name, "") for name in MANAGERS_VARIABLES)
    if pid != str(os.getpid()) or not count.isdecimal():
        return {}
    found = {}
    for descriptor in range(FIRST_OF_MANAGER, FIRST_OF_MANAGER + int(count)):
        os.set_inheritable(descriptor, False)
        if path := path_of(descriptor):
            found[path] = descriptor
    return found


def path_of(descriptor: int) -> str:
    """Return the path that a listening stream socket is bound to, "" for anything else."""
    try:
        with socket.socket(fileno=os.dup(descriptor)) as made:
            is_listening = made.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            path = made.getsockname()
            is_stream = made.family == socket.AF_UNIX and made.type == socket.SOCK_STREAM
    except OSError:
        return ""
    return path if is_listening and is_stream and isinstance(path, str) else ""
