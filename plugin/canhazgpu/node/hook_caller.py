"""The port for who asks for a hook's work on this node."""

from __future__ import annotations

import os
from typing import Protocol


class HookCaller(Protocol):
    """Who asks for a hook's work: the hook's own process, or one that may give up or be killed."""

    @property
    def pid(self) -> int:
        """The process that asks. It is below the scheduler's daemon, if that started the hook."""
        ...

    def confirms(self, limit_s: float) -> bool:
        """Say that the work can begin; return whether it shall.

        It takes `limit_s` seconds at most. Nothing is reserved, released or asked of the scheduler
        before, and nothing at all after False. A second call gives the first one's answer.
        """
        ...

    def is_gone(self) -> bool:
        """Return whether nobody waits for the outcome any more."""
        ...


class CallingProcess(Protocol):
    """A process that asks, by the kernel's word alone: its number here, and its user then."""

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


class OwnProcess:
    """The hook's own process: it ends with whoever asks."""

    @property
    def pid(self) -> int:
        """See `HookCaller.pid`."""
        return os.getpid()

    def confirms(self, limit_s: float) -> bool:
        """See `HookCaller.confirms`."""
        return True

    def is_gone(self) -> bool:
        """See `HookCaller.is_gone`."""
        return False


OWN_PROCESS = OwnProcess()
