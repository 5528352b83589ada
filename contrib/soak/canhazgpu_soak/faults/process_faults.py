"""Kill and stop the node's processes, the hooks' and the people's."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from canhazgpu_soak import process_signals
from canhazgpu_soak.cluster import SoakCluster
from canhazgpu_soak.faults.injection import Maker
from canhazgpu_soak.faults.plan import PROCESSES, Fault
from canhazgpu_soak.faults.processes import is_waiter, targets
from canhazgpu_soak.stores.port import Struck, nothing_to_undo


class ProcessFaults:
    """`commands` returns the pids of commands. Agents that it kills join `agents_killed`."""

    def __init__(
        self, cluster: SoakCluster, commands: Callable[[], list[int]], agents_killed: set[int]
    ) -> None:
        self._agents_killed = agents_killed
        self._cluster = cluster
        self._commands = commands

    def makers(self) -> dict[str, Maker]:
        """Return what makes each kind of fault."""
        makers: dict[str, Maker] = {}
        for target in PROCESSES:
            makers[f"{target} killed"] = partial(self._kill, target)
            makers[f"{target} stopped"] = partial(self._stop, target)
        return makers

    def _kill(self, target: str, fault: Fault) -> Struck:
        pid = self._choose(target, fault)
        if not pid:
            return None
        if target == "agent":
            self._agents_killed.add(pid)
        if process_signals.kill(pid, lambda: pid in self._found(target, fault.node)):
            return nothing_to_undo
        if target == "agent":
            self._agents_killed.discard(pid)
        return None

    def _stop(self, target: str, fault: Fault) -> Struck:
        pid = self._choose(target, fault)
        if not pid or not process_signals.stop(pid, lambda: pid in self._found(target, fault.node)):
            return None
        return partial(process_signals.go_on, pid)

    def _choose(self, target: str, fault: Fault) -> int:
        found = sorted(self._found(target, fault.node))
        return found[int(fault.draw * len(found))] if found else 0

    def _found(self, target: str, node: str) -> list[int]:
        if target == "command":
            return self._commands()
        if target == "waiter":
            return [pid for pid in self._commands() if is_waiter(pid)]
        return targets(self._cluster, target, node)
