"""Start the watcher when something was left in the journal, and none lives.

A hook empties the journal itself where the store answers. So what is in it is looked at a little
after the change, and once for all changes until then.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from canhazgpu.agent.listener.journal_watch import JournalWatch
from canhazgpu.agent.listener.single_child import SingleChild

LOOK_AFTER_S = 0.5


class WatcherStarter:
    """The watcher of this agent; `run` is what it becomes, with the agent's pid."""

    def __init__(
        self,
        journal: JournalWatch,
        run: Callable[[int], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._journal = journal
        self._run = run
        self._clock = clock
        self._child = SingleChild("watcher", clock)
        # What an agent before this one has left.
        self._look_at: float | None = clock()

    @property
    def descriptor(self) -> int | None:
        """What to wait for: None while a look is due anyway, or a watcher lives."""
        waits = self._look_at is None and not self._child.lives
        return self._journal.descriptor if waits else None

    @property
    def wait_s(self) -> float | None:
        """How long it is until the next look, in seconds; None if none is due."""
        if self._look_at is None or self._child.lives:
            return None
        return max(self._look_at - self._clock(), self._child.rest_s, 0.0)

    def note_change(self) -> None:
        """Have the journal looked at soon."""
        if self._look_at is None:
            self._look_at = self._clock() + LOOK_AFTER_S

    def is_needed(self) -> bool:
        """Look, if it is time to; return whether a watcher is to be started."""
        if self.wait_s is None or self.wait_s > 0:
            return False
        self._look_at = None
        self._journal.forget_events()
        return self._journal.has_entries()

    def start(self) -> None:
        """Start a watcher; raises `OSError` where no process can be started."""
        agent = os.getpid()
        try:
            self._child.start(lambda: self._run(agent))
        except OSError:
            self._look_at = self._clock()
            raise

    def reap(self) -> str:
        """Note that the watcher has ended, if it has; return its fault, empty for none."""
        lived = self._child.lives
        fault = self._child.reap()
        if lived and not self._child.lives:
            # What came after its last look, or what it has not done.
            self._look_at = self._clock()
        return fault
