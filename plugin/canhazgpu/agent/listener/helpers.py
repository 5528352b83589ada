"""The listener's processes beside its handlers: scanner, watcher, spare handler, and those kept."""

from __future__ import annotations

import contextlib
import select
from collections.abc import Callable, Iterator, Sequence

from canhazgpu.agent.listener.forking import blocked_signals
from canhazgpu.agent.listener.scanner_starter import ScannerStarter
from canhazgpu.agent.listener.spare_handler import SpareHandlers
from canhazgpu.agent.listener.watcher_starter import WatcherStarter
from canhazgpu.agent.request import Request
from canhazgpu.agent.respawned_process import RespawnedProcess


class Helpers:
    """Starts them when they are needed; `fault` gets what goes wrong."""

    def __init__(
        self,
        fault: Callable[[str], None],
        scanner: ScannerStarter | None = None,
        watcher: WatcherStarter | None = None,
        spare: SpareHandlers | None = None,
        kept: Sequence[RespawnedProcess] = (),
    ) -> None:
        self._fault = fault
        self._scanner = scanner
        self._watcher = watcher
        self._spare = spare
        self._kept = kept

    def wait_with(self, poll: select.poll) -> Iterator[float | None]:
        """Register what tells that one is needed; yield how long to wait for more, in seconds."""
        if self._scanner and self._scanner.waits:
            poll.register(self._scanner.descriptor, select.POLLIN)
        elif self._scanner and self._scanner.rest_s > 0:
            yield self._scanner.rest_s
        if self._watcher:
            yield self._watcher.wait_s
            for descriptor in self._watcher.descriptors:
                poll.register(descriptor, select.POLLIN)
        for process in self._kept:
            yield process.wait_s
        if self._spare:
            yield self._spare.wait_s
            for descriptor in self._spare.descriptors:
                poll.register(descriptor, select.POLLIN)

    def start_needed(self, ready: set[int]) -> None:
        """Start those that are needed, by the descriptors that are ready."""
        if self._scanner and self._scanner.waits and self._scanner.descriptor in ready:
            self._start("scanner", self._scanner.start)
        if self._watcher:
            self._watcher.note_ready(ready)
            if self._watcher.is_needed():
                self._start("watcher", self._watcher.start)
        for process in self._kept:
            if process.is_needed():
                self._start(process.name, process.start)

    def start_spare(self) -> None:
        """Fork a handler in advance, if there is none."""
        if self._spare and self._spare.is_missing:
            # What keeps it from being forked is told where a request needs a process.
            with blocked_signals(), contextlib.suppress(OSError):
                self._spare.start()

    def hand_over(self, request: Request) -> int:
        """Give the request to a handler that waits, or to a new one; return its pid.

        It is 0 where the request is too long. Raises `OSError` where no process can be started.
        """
        if self._spare is None:
            return 0
        with blocked_signals():
            return self._spare.hand_over(request)

    def handlers_that_may_wait(self, ready: set[int]) -> list[int]:
        """Return the pids of those whose request is over, and who take another."""
        return self._spare.said_more(ready) if self._spare else []

    def keep_handler(self, pid: int) -> None:
        """Have one of these wait for its next request."""
        if self._spare:
            self._spare.keep(pid)

    def forget_handler(self, pid: int) -> None:
        """Note that a handler has ended, or is to end."""
        if self._spare:
            self._spare.forget(pid)

    def end_spare(self) -> None:
        """Let the handlers end that wait; none is forked in advance any more."""
        if self._spare:
            self._spare.end()

    def end_and_forget(self) -> list[int]:
        """Have all end, and start none by itself; return their pids: the caller reaps them.

        Scanner and watcher are killed, as with an agent that ends. An order is carried out first.
        """
        pids = [one.kill_and_forget() for one in (self._scanner, self._watcher) if one]
        pids += [one.tell_to_end_and_forget() for one in self._kept]
        pids += self._spare.end_and_forget() if self._spare else []
        return [pid for pid in pids if pid]

    def resume(self) -> None:
        """Have them again after `end_and_forget`."""
        if self._spare:
            self._spare.resume()

    def note_served(self) -> None:
        """Note that a handler has ended: there may be something for the watcher."""
        if self._watcher:
            self._watcher.note_change()

    def reap(self) -> None:
        """Note those that have ended."""
        for child in (self._scanner, self._watcher, *self._kept):
            if child and (fault := child.reap()):
                self._fault(fault)
        for fault in self._spare.reap() if self._spare else ():
            self._fault(fault)

    def _start(self, name: str, start: Callable[[], None]) -> None:
        with blocked_signals():
            try:
                start()
            except OSError as exc:
                self._fault(f"cannot start the {name}: {exc.strerror}")
