"""A process of the agent's of which one always lives: where it ends, another is started."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from canhazgpu.agent.single_child import SingleChild


class RespawnedProcess:
    """The process; `run` is what it becomes, with the agent's pid, and `name` is for faults."""

    def __init__(
        self, name: str, run: Callable[[int], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.name = name
        self._run = run
        self._child = SingleChild(name, clock)

    @property
    def wait_s(self) -> float | None:
        """How long it is until one is to be started, in seconds; None while one lives."""
        return None if self._child.lives else max(self._child.rest_s, 0.0)

    def is_needed(self) -> bool:
        """Return whether one is to be started now."""
        return self.wait_s == 0

    def start(self) -> None:
        """Start one; raises `OSError` where no process can be started."""
        agent = os.getpid()
        self._child.start(lambda: self._run(agent))

    def tell_to_end_and_forget(self) -> int:
        """Tell it to end when it can; return its pid: the caller reaps it."""
        return self._child.tell_to_end_and_release()

    def reap(self) -> str:
        """Note that it has ended, if it has; return its fault, empty for none."""
        return self._child.reap()
