"""Carry the faults out as planned, and undo what lasts only for a time."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Callable

from canhazgpu_soak.cluster import SoakCluster, now
from canhazgpu_soak.plan import Fault
from canhazgpu_soak.processes import targets
from demo_cluster import DemoClusterError

COPY_EVERY_S = 20.0
TICK_S = 0.05
LOOKING_TICK_S = 0.01
"""A handler lives for some hundredths of a second."""
ARMED_S = 10.0
"""For so long a fault waits for a process that it can strike."""
Undo = Callable[[], object]


class Faults:
    """Faults of one soak; `run` returns when all are over or `stop` is set, with all undone."""

    def __init__(self, cluster: SoakCluster, commands: Callable[[], list[int]], hogs: int) -> None:
        self.injected: Counter[str] = Counter()
        self.agents_killed: Counter[str] = Counter()
        self.log: list[str] = []
        self._cluster = cluster
        self._commands = commands
        self._hogs = hogs
        self._undo: list[tuple[float, int, Undo]] = []
        self.slurmd_restarts: list[tuple[str, float]] = []
        """On which node, and when each began."""
        self._restarting = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._errors: list[DemoClusterError] = []
        self._armed: list[tuple[float, Fault]] = []
        self._order = itertools.count()
        self._kinds: dict[str, Callable[[Fault], bool]] = {
            "store killed": self._kill_store,
            "store stopped": self._stop_store,
            "store flushed": self._flush_store,
            "store put back": self._put_store_back,
            "slurmctld restarted": self._restart_slurmctld,
            "slurmd restarted": self._restart_slurmd,
            "hogs": self._start_hogs,
        }

    def run(self, plan: tuple[Fault, ...], stop: threading.Event) -> None:
        """Carry out the plan, whose times count from now."""
        began = copied = now()
        waiting = list(plan)
        try:
            while (waiting or self._armed) and not stop.wait(self._pause_s()):
                self._undo_due(now())
                if now() - copied > COPY_EVERY_S:
                    copied = now()
                    self._cluster.store.keep_copy()
                while waiting and now() - began >= waiting[0].at_s:
                    self._armed.append((now() + ARMED_S, waiting.pop(0)))
                self._inject_armed()
        finally:
            self._undo_due(float("inf"))
            for one in self._threads:
                one.join()
        if self._errors:
            raise self._errors[0]

    def _pause_s(self) -> float:
        return LOOKING_TICK_S if self._armed else TICK_S

    def _inject_armed(self) -> None:
        """Carry out what is due; processes that come and go are waited for a while."""
        armed, self._armed = self._armed, []
        for until, fault in armed:
            if self._kinds.get(fault.kind, self._strike)(fault):
                self.injected[fault.kind] += 1
            elif now() < until:
                self._armed.append((until, fault))

    def _strike(self, fault: Fault) -> bool:
        """Kill or stop a process; false where there is none of its kind."""
        target, _, act = fault.kind.partition(" ")
        found = (
            self._commands() if target == "command" else targets(self._cluster, target, fault.node)
        )
        if not found:
            return False
        pid = sorted(found)[int(fault.draw * len(found))]
        self._say(fault, f"PID {pid}")
        if act == "stopped":
            self._later(fault.lasts_s, lambda: _signal(pid, signal.SIGCONT))
            return _signal(pid, signal.SIGSTOP)
        if target == "agent":
            self.agents_killed[fault.node] += 1
        return _signal(pid, signal.SIGKILL)

    def _kill_store(self, fault: Fault) -> bool:
        self._say(fault)
        self._cluster.store.kill()
        self._later(fault.lasts_s, self._cluster.store.start)
        return True

    def _stop_store(self, fault: Fault) -> bool:
        self._say(fault)
        self._cluster.store.signal(signal.SIGSTOP)
        self._later(fault.lasts_s, lambda: self._cluster.store.signal(signal.SIGCONT))
        return True

    def _flush_store(self, fault: Fault) -> bool:
        self._say(fault)
        self._cluster.store.flush()
        return True

    def _put_store_back(self, fault: Fault) -> bool:
        if not self._cluster.store.put_back():
            return False
        self._say(fault)
        return True

    def _restart_slurmctld(self, fault: Fault) -> bool:
        self._say(fault)
        self._aside(self._cluster.slurm.restart_slurmctld)
        return True

    def _restart_slurmd(self, fault: Fault) -> bool:
        self._say(fault)
        self.slurmd_restarts.append((fault.node, now()))
        node = fault.node
        self._aside(lambda: self._cluster.slurm.restart_slurmd(node))
        return True

    def _aside(self, act: Callable[[], object]) -> None:
        """Do what takes seconds, and may wait for what another fault has stopped.

        One after another: a daemon is not to be stopped while it is started.
        """

        def guarded() -> None:
            with self._restarting:
                try:
                    act()
                except DemoClusterError as exc:
                    self._errors.append(exc)

        self._threads.append(threading.Thread(target=guarded))
        self._threads[-1].start()

    def _start_hogs(self, fault: Fault) -> bool:
        self._say(fault, f"{self._hogs} processes")
        busy = ["/usr/bin/timeout", f"{fault.lasts_s:.1f}", "/bin/sh", "-c", "while :; do :; done"]
        hogs = [subprocess.Popen(busy, start_new_session=True) for _ in range(self._hogs)]
        self._later(fault.lasts_s, lambda: _end(hogs))
        return bool(hogs)

    def _say(self, fault: Fault, more: str = "") -> None:
        place = "" if fault.kind.startswith(("store", "slurmctld", "hogs")) else f" on {fault.node}"
        self.log.append(f"{now():.2f} {fault.kind}{place} for {fault.lasts_s:.1f} s {more}".strip())

    def _later(self, after_s: float, undo: Undo) -> None:
        heapq.heappush(self._undo, (now() + after_s, next(self._order), undo))

    def _undo_due(self, at: float) -> None:
        while self._undo and self._undo[0][0] <= at:
            heapq.heappop(self._undo)[2]()


def _signal(pid: int, number: signal.Signals) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
        return True
    return False


def _end(hogs: list[subprocess.Popen[bytes]]) -> None:
    for one in hogs:
        one.terminate()
    for one in hogs:
        one.wait()
