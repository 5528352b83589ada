"""Starts the nodes' agents again when they have ended, and tells which ended by themselves."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Collection

from canhazgpu_soak.cluster import SoakCluster, now
from canhazgpu_soak.evidence import Finding
from canhazgpu_soak.faults.node_faults import FILLER
from canhazgpu_soak.report import AGENT_ENDED
from demo_cluster import StartError
from demo_cluster.layout import agent_name

SUPERVISE_EVERY_S = 0.5


class AgentSupervisor:
    """Does what systemd would. `killed` tells the pids that a fault has killed."""

    def __init__(self, cluster: SoakCluster, killed: Collection[int]) -> None:
        self.ended_by_themselves: list[Finding] = []
        self.kept_from_starting = 0
        """Starts that a full disk or a kill ended."""
        self._cluster = cluster
        self._killed = killed
        self._pids: dict[str, int] = {}

    def supervise(self, stop: threading.Event) -> None:
        """Start each agent that has ended."""
        while not stop.wait(SUPERVISE_EVERY_S):
            for node in self._cluster.nodes:
                with self._cluster.supervision[node]:
                    self._look_at(node)

    def _look_at(self, node: str) -> None:
        if pid := self._cluster.agent_pid(node):
            self._pids[node] = pid
            return
        pid = self._pids.pop(node, 0)
        if pid and pid not in self._killed:
            self._note(node, self._cluster.slurm.log_end(agent_name(node)))
        self._start(node)

    def _start(self, node: str) -> None:
        was_full, killed = self._is_full(node), len(self._killed)
        try:
            self._cluster.slurm.start_agents(node)
        except StartError as exc:
            if self._cluster.agent_pid(node):
                return  # it serves late
            # On a starved machine a disk may be full and free again while an agent starts.
            was_full = was_full or self._is_full(node) or os.strerror(errno.ENOSPC) in str(exc)
            if was_full or len(self._killed) > killed:
                self.kept_from_starting += 1
            else:
                self._note(node, str(exc))

    def _note(self, node: str, log: str) -> None:
        self.ended_by_themselves.append(Finding(AGENT_ENDED, now(), f"{node}: {log}"))

    def _is_full(self, node: str) -> bool:
        return (self._cluster.state_dir(node) / FILLER).exists()
