"""The port for a process that asks for something on this node, by the kernel's word alone."""

from __future__ import annotations

from typing import Protocol


class CallingProcess(Protocol):
    """Its number on this node, and the user that it had when it began to ask."""

    @property
    def pid(self) -> int: ...  # noqa: D102

    @property
    def uid(self) -> int: ...  # noqa: D102

    def control_groups(self) -> str:
        """Return the text of its /proc/PID/cgroup; raises `ProcessLookupError` if it has ended."""
        ...

    def require_alive(self) -> None:
        """Raise `ProcessLookupError` if it has ended: what was seen of its pid may be another's."""
        ...
