"""Start the watcher when there is something for it, and none lives.

A hook empties the journal itself where the store answers. So what is in it is looked at a little
after the change, and once for all changes until then. A run is watched at once, and a client that
waits is handed over at once.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Callable, Collection

from canhazgpu.agent.single_child import SingleChild
from canhazgpu.agent.watcher.journal_watch import JournalWatch
from canhazgpu.agent.watcher.runs.runs_watch import RunsWatch

LOOK_AFTER_S = 0.5


class WatcherStarter:
    """The watcher of this agent; `run` is what it becomes, with the agent's pid.

    `queue` is the socket where handlers hand over clients that wait.
    """

    def __init__(
        self,
        journal: JournalWatch,
        runs: RunsWatch,
        run: Callable[[int], None],
        queue: socket.socket | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._journal = journal
        self._runs = runs
        self._queue = queue
        self._run = run
        self._clock = clock
        self._child = SingleChild("watcher", clock)
        # What an agent before this one has left.
        self._look_at: float | None = clock()

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What to wait for: nothing while a watcher lives, and no journal while a look is due."""
        if self._child.lives or self._child.rest_s > 0:
            return ()
        watches = (self._runs,) if self._look_at is not None else (self._journal, self._runs)
        seen = (one.descriptor for one in watches if one.descriptor is not None)
        return (*seen, self._queue.fileno()) if self._queue else tuple(seen)

    @property
    def wait_s(self) -> float | None:
        """How long it is until the next look, in seconds; None if none is due."""
        if self._look_at is None or self._child.lives:
            return None
        return max(self._look_at - self._clock(), self._child.rest_s, 0.0)

    def note_ready(self, ready: Collection[int]) -> None:
        """Note the descriptors that are readable."""
        if self._child.lives:
            return
        if self._runs.descriptor in ready or (self._queue and self._queue.fileno() in ready):
            self._look_at = self._clock()
        elif self._journal.descriptor in ready:
            self.note_change()

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
        self._runs.forget_events()
        return self._runs.has_runs() or self._journal.has_entries() or self._has_waiter()

    def _has_waiter(self) -> bool:
        if self._queue is None:
            return False
        poll = select.poll()
        poll.register(self._queue, select.POLLIN)
        return bool(poll.poll(0))

    def start(self) -> None:
        """Start a watcher; raises `OSError` where no process can be started."""
        agent = os.getpid()
        try:
            self._child.start(lambda: self._run(agent))
        except OSError:
            self._look_at = self._clock()
            raise

    def kill_and_forget(self) -> int:
        """Kill the watcher: what it has not done, the next one does; return its pid."""
        self._look_at = self._clock()
        return self._child.kill_and_release()

    def reap(self) -> str:
        """Note that the watcher has ended, if it has; return its fault, empty for none."""
        lived = self._child.lives
        fault = self._child.reap()
        if lived and not self._child.lives:
            # What came after its last look, or what it has not done.
            self._look_at = self._clock()
        return fault
