"""The watcher: the agent's process that does what no request asks for."""

from __future__ import annotations

import contextlib
import gc
import resource
import socket
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from canhazgpu.agent.handler.fresh_process import become_fresh, use_environment
from canhazgpu.agent.watcher.duty import Duty, carry_out
from canhazgpu.agent.watcher.journal_delivery import JournalDelivery, deliver
from canhazgpu.agent.watcher.node_ports import NodePorts
from canhazgpu.agent.watcher.queue.held_gpus import HeldGpus
from canhazgpu.agent.watcher.queue.waiter_answers import OpenAnswers
from canhazgpu.agent.watcher.queue.waiter_duty import WaiterDuty
from canhazgpu.agent.watcher.runs.run_duty import RunDuty
from canhazgpu.agent.watcher.runs.runs_watch import RunsWatch
from canhazgpu.config.schema import Config, RunConfig
from canhazgpu.errors import ConfigError
from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.node.daemonize import duplicate_above_stdio
from canhazgpu.node.identity import boot_id
from canhazgpu.node.process_id import ProcessId
from canhazgpu.node.processes import identify_process
from canhazgpu.probe.bounded_child import die_with_parent


@dataclass(frozen=True, slots=True)
class WaitingSocket:
    """Where clients that wait are handed over, and what they are told."""

    listening: socket.socket
    open_answers: OpenAnswers


@dataclass(frozen=True, slots=True)
class Watcher:
    """What a watcher of this node does; `environ` is the agent's."""

    node: str
    state_dir: Path
    environ: Mapping[str, str]
    read_config: Callable[[], Config]
    scanner_socket: Path
    waiting: WaitingSocket | None = None

    def run(self, parent: int) -> None:
        """Be the watcher of this agent (its pid), in a new process, until nothing is left to do."""
        die_with_parent(parent)()
        listening = self.waiting and duplicate_above_stdio(self.waiting.listening.fileno())
        become_fresh((listening,) if listening else ())
        use_environment(self.environ)
        # Its children share its memory for as long as nobody writes to it.
        gc.freeze()
        agent = identify_process(parent) or ProcessId(parent, 0)
        _allow_many_descriptors()
        ports = NodePorts(self.node, self.environ, self.read_config, self.scanner_socket)
        runs = RunsWatch(self.state_dir)
        duties: list[Duty] = [self._journal(), self._runs(runs, ports, agent)]
        if self.waiting and listening:
            duties.append(self._waiters(listening, self.waiting.open_answers, runs, ports))
        carry_out(duties)

    def _journal(self) -> JournalDelivery:
        try_once = partial(deliver, self.node, self.environ, self.read_config)
        return JournalDelivery(self.node, self.state_dir, try_once)

    def _runs(self, runs: RunsWatch, ports: NodePorts, agent: ProcessId) -> RunDuty:
        return RunDuty(
            self.node,
            boot_id(),
            runs,
            agent,
            self._run_config().heartbeat_s,
            ports,
        )

    def _waiters(
        self, listening: int, open_answers: OpenAnswers, runs: RunsWatch, ports: NodePorts
    ) -> WaiterDuty:
        return WaiterDuty(
            self.node,
            socket.socket(fileno=listening),
            HeldGpus(self.state_dir),
            runs.files,
            ports,
            open_answers,
        )

    def _run_config(self) -> RunConfig:
        """Return the configuration of runs; the defaults where it cannot be read."""
        try:
            return self.read_config().run
        except ConfigError:
            return RunConfig()


def _allow_many_descriptors() -> None:
    """Use as many descriptors as the process may: each run and each waiter takes one or two."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
