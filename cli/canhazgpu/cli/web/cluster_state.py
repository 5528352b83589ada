"""What the pages show: the cluster as it was last read, by one reader for all viewers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from canhazgpu.errors import CanhazgpuError, error_text
from canhazgpu.status.unknown_values import known_models, known_partitions, known_users

if TYPE_CHECKING:
    from canhazgpu.service.status import StatusAnswer
    from canhazgpu.status.node_status import NodeStatus

SHARE_OF_TIME = 10.0
"""A read that took one second is followed by so many seconds without one."""
USABLE_S = 30.0
"""Whoever comes during a read gets the state of before, if it is not older than this."""
QUICK_S = 1.0
"""Seconds of CPU; nobody who looks at a page waits for a read that takes longer."""
PAGE_WAIT_S = 2.0
"""How long a page waits for a read: the first one of all, or one that ought to take little."""


@dataclass(frozen=True)
class Snapshot:
    """The nodes as they were read: sorted by name, at least one.

    `generated_at` is the time of the store's clock, `read_at` that of this machine's monotonic
    clock, both in seconds.
    """

    nodes: tuple[NodeStatus, ...]
    generated_at: float
    read_at: float

    @cached_property
    def by_name(self) -> dict[str, NodeStatus]:
        """The nodes by name."""
        return {one.node: one for one in self.nodes}

    @cached_property
    def partitions(self) -> tuple[str, ...]:
        """The partitions that any node has published."""
        return tuple(sorted(known_partitions(self.nodes)))

    @cached_property
    def users(self) -> tuple[str, ...]:
        """Whoever holds, uses or waits for a GPU."""
        return tuple(sorted(known_users(self.nodes)))

    @cached_property
    def models(self) -> tuple[str, ...]:
        """The models that run, and the products of the GPUs."""
        return tuple(sorted(known_models(self.nodes)))


@dataclass(frozen=True, slots=True)
class ClusterState:
    """The last snapshot, None where nothing was ever read, and why there is no newer one.

    `number` grows with every attempt to read. `fault` is "" where the last one succeeded.
    """

    snapshot: Snapshot | None = None
    number: int = 0
    fault: str = ""


@dataclass
class ClusterReader:
    """Reads the cluster for whoever asks, at most once in a time.

    `read` raises `CanhazgpuError`. `interval_s` is the shortest time between two reads; `clock` is
    monotonic, in seconds. A page waits for `page_wait_s` at most.
    """

    read: Callable[[], StatusAnswer]
    interval_s: float
    clock: Callable[[], float] = time.monotonic
    page_wait_s: float = PAGE_WAIT_S
    _state: ClusterState = field(default_factory=ClusterState)
    _next_at: float = 0.0
    _reading: threading.Lock = field(default_factory=threading.Lock)
    _cost_s: float = 0.0
    _ahead: threading.Thread | None = None

    @property
    def last(self) -> ClusterState:
        """The state that is there, whatever its age."""
        return self._state

    def seconds_until_due(self) -> float:
        """Return after how many seconds the next read may begin; 0 for now."""
        return max(self._next_at - self.clock(), 0.0)

    def current(self) -> ClusterState:
        """Return the state, read now if the last one is old; waits while another thread reads it.

        Nobody waits where there is a state that is good enough.
        """
        if self._state.number and self.seconds_until_due() > 0:
            return self._state
        if not self._reading.acquire(blocking=not self._is_usable()):
            return self._state
        try:
            if not self._state.number or self.seconds_until_due() <= 0:
                self._read()
        finally:
            self._reading.release()
        return self._state

    def at_once(self) -> ClusterState:
        """Return the state that is there, and have it read meanwhile if it is old.

        The first read of all and one that takes little are waited for, no longer than a person
        would: whoever is asked may be stopped. The state has the number 0 where nothing was read
        yet. While nothing can be read, nobody waits.
        """
        state = self._state
        if state.number and self.seconds_until_due() > 0:
            return state
        ahead = self._read_ahead()
        if not state.number or (self._cost_s < QUICK_S and not state.fault):
            ahead.join(self.page_wait_s)
        return self._state

    def _read_ahead(self) -> threading.Thread:
        ahead = self._ahead
        if ahead is None or not ahead.is_alive():
            # Two askers may start one each: the later one finds that nothing is due.
            ahead = threading.Thread(target=self.current, daemon=True)
            ahead.start()
            self._ahead = ahead
        return ahead

    def _is_usable(self) -> bool:
        snapshot = self._state.snapshot
        return snapshot is not None and self.clock() - snapshot.read_at < USABLE_S

    def _read(self) -> None:
        began, cpu_s = self.clock(), time.thread_time()
        number = self._state.number + 1
        try:
            answer = self.read()
        except CanhazgpuError as exc:
            self._state = replace(self._state, number=number, fault=error_text(exc))
        else:
            fault = error_text(answer.store_fault) if answer.store_fault else ""
            snapshot = Snapshot(answer.nodes, answer.nodes[0].read_at, self.clock())
            if fault:
                snapshot = self._state.snapshot or snapshot
            self._state = ClusterState(snapshot, number, fault)
        took = self.clock() - began
        self._cost_s = time.thread_time() - cpu_s
        # Most of a failure's time was a wait, and costs nobody anything.
        share = 1.0 if self._state.fault else SHARE_OF_TIME
        self._next_at = self.clock() + max(self.interval_s, share * took)
