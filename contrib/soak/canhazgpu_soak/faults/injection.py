"""Carry the faults out as planned, undo what lasts only for a time, and count what struck."""

from __future__ import annotations

import heapq
import itertools
import threading
from collections import Counter
from collections.abc import Callable, Mapping

from canhazgpu_soak.cluster import SoakCluster, now
from canhazgpu_soak.faults.plan import Fault
from canhazgpu_soak.stores.port import Struck, Undo
from demo_cluster import DemoClusterError

COPY_EVERY_S = 20.0
TICK_S = 0.05
LOOKING_TICK_S = 0.01
"""A handler lives for some hundredths of a second."""
STORE_PAUSE_S = 2.0
"""So long the store is well after a fault of its own."""
ARMED_S = 15.0
"""For so long a fault waits for a process that it can strike."""
Maker = Callable[[Fault], Struck]


class Faults:
    """Faults of one soak; `run` returns when all are over or `stop` is set, with all undone.

    `makers` carry out one kind each, at once; `slow_makers` take seconds and have threads of their
    own. Those of the store come one after another, and so do the others: a daemon is not to be
    stopped while it is started. What is to be undone, another thread undoes in time.
    """

    def __init__(
        self, cluster: SoakCluster, makers: Mapping[str, Maker], slow_makers: Mapping[str, Maker]
    ) -> None:
        self.injected: Counter[str] = Counter()
        self.missed: Counter[str] = Counter()
        self.log: list[str] = []
        self._cluster = cluster
        self._makers = makers
        self._slow_makers = slow_makers
        self._undo: list[tuple[float, int, Undo]] = []
        self._armed: list[tuple[float, Fault]] = []
        self._order = itertools.count()
        self._one_at_a_time = {is_of_store: threading.Lock() for is_of_store in (True, False)}
        self._store_free_at = 0.0
        self._undoing = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._errors: list[Exception] = []

    @property
    def kinds(self) -> set[str]:
        """All kinds of faults that it can make."""
        return {*self._makers, *self._slow_makers}

    def run(self, plan: tuple[Fault, ...], stop: threading.Event) -> None:
        """Carry out the plan, whose times count from now."""
        began = now()
        waiting = list(plan)
        over = threading.Event()
        beside = [
            threading.Thread(target=act, args=(over,)) for act in (self._undo_all, self._copy)
        ]
        for one in beside:
            one.start()
        try:
            while (waiting or self._armed or self._undo) and not stop.wait(self._pause_s()):
                while waiting and now() - began >= waiting[0].at_s:
                    self._armed.append((now() + ARMED_S, waiting.pop(0)))
                self._inject_armed()
        finally:
            over.set()
            for one in [*self._threads, *beside]:
                one.join()
            self._undo_due(float("inf"))
        if self._errors:
            raise self._errors[0]

    def _pause_s(self) -> float:
        return LOOKING_TICK_S if self._armed else TICK_S

    def _undo_all(self, over: threading.Event) -> None:
        while not over.wait(TICK_S):
            self._undo_due(now())

    def _copy(self, over: threading.Event) -> None:
        """Keep copies of the store's data, but not of a store that has a fault."""
        while not over.wait(COPY_EVERY_S):
            with self._one_at_a_time[True]:
                if now() > self._store_free_at:
                    self._cluster.store.keep_copy()

    def _inject_armed(self) -> None:
        """Carry out what is due; processes that come and go are waited for a while."""
        armed, self._armed = self._armed, []
        for until, fault in armed:
            if slow := self._slow_makers.get(fault.kind):
                self._aside(slow, fault)
            elif not self._strike(self._makers[fault.kind], fault):
                if now() < until:
                    self._armed.append((until, fault))
                else:
                    self._miss(fault)

    def _strike(self, make: Maker, fault: Fault) -> bool:
        began = now()
        undo = make(fault)
        if undo is None:
            return False
        self.injected[fault.kind] += 1
        self._say(began, fault)
        if fault.is_of_store:
            self._store_free_at = now() + fault.lasts_s + STORE_PAUSE_S
        with self._undoing:
            heapq.heappush(self._undo, (now() + fault.lasts_s, next(self._order), undo))
        return True

    def _aside(self, make: Maker, fault: Fault) -> None:
        def guarded() -> None:
            with self._one_at_a_time[fault.is_of_store]:
                try:
                    is_busy = fault.is_of_store and now() < self._store_free_at
                    if is_busy or not self._strike(make, fault):
                        self._miss(fault)
                except (DemoClusterError, OSError, RuntimeError) as exc:
                    self._errors.append(exc)

        self._threads.append(threading.Thread(target=guarded))
        self._threads[-1].start()

    def _miss(self, fault: Fault) -> None:
        self.missed[fault.kind] += 1
        self.log.append(f"{now():.2f} {fault.kind} on {fault.node}: nothing to strike")

    def _say(self, began: float, fault: Fault) -> None:
        self.log.append(
            f"{began:.2f} to {now():.2f} {fault.kind} on {fault.node} for {fault.lasts_s:.1f} s"
        )

    def _undo_due(self, at: float) -> None:
        while self._undo and self._undo[0][0] <= at:
            with self._undoing:
                undo = heapq.heappop(self._undo)[2]
            try:
                undo()
            except (DemoClusterError, OSError, RuntimeError) as exc:
                self._errors.append(exc)
