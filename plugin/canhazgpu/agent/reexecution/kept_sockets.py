"""Listening sockets that outlive the program: who connects meanwhile waits in their queue."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from canhazgpu.agent.reexecution.inherited_state import InheritedState
from canhazgpu.agent.socket_files import listen
from canhazgpu.errors import NodeStateError


class KeptSockets:
    """Gives the agent's listening sockets: those that were handed on, else new ones."""

    def __init__(self, handed: InheritedState) -> None:
        self._left = dict(handed.sockets)
        self._managed = frozenset(handed.managed)
        self._open: dict[str, int] = {}

    @property
    def open(self) -> dict[str, int]:
        """The descriptors of those that were given, by their path."""
        return dict(self._open)

    @property
    def managed(self) -> tuple[str, ...]:
        """The paths of those that the service manager holds, too."""
        return tuple(sorted(self._managed.intersection(self._open)))

    @contextlib.contextmanager
    def listening(self, path: Path, mode: int) -> Iterator[socket.socket]:
        """Give the socket at this path; its file is removed in the end, unless it is a manager's.

        Raises `NodeStateError`.
        """
        try:
            made = self._taken(path, mode) or listen(path, mode)
        except OSError as exc:
            raise NodeStateError(f"cannot make the socket {path}: {exc.strerror or exc}") from exc
        self._open[str(path)] = made.fileno()
        try:
            yield made
        finally:
            del self._open[str(path)]
            if str(path) not in self._managed:
                with contextlib.suppress(OSError):
                    path.unlink()
            made.close()

    def close_rest(self) -> None:
        """Close what was handed on and is not wanted: nobody is to wait there."""
        for path, descriptor in self._left.items():
            if path not in self._managed and path not in self._open:
                with contextlib.suppress(OSError):
                    Path(path).unlink()
            with contextlib.suppress(OSError):
                os.close(descriptor)
        self._left = {}

    def _taken(self, path: Path, mode: int) -> socket.socket | None:
        if not path.is_socket() or (descriptor := self._left.pop(str(path), None)) is None:
            return None
        made = socket.socket(fileno=descriptor)
        made.setblocking(False)
        path.chmod(mode)
        return made
