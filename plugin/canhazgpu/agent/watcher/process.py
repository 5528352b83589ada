"""The watcher: the agent's process that does what no request asks for."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from canhazgpu.agent.handler.fresh_process import become_fresh, use_environment
from canhazgpu.agent.watcher.duty import carry_out
from canhazgpu.agent.watcher.journal_delivery import JournalDelivery, deliver
from canhazgpu.agent.watcher.node_ports import NodePorts
from canhazgpu.agent.watcher.runs.run_duty import RunDuty
from canhazgpu.agent.watcher.runs.runs_watch import RunsWatch
from canhazgpu.config.schema import Config, RunConfig
from canhazgpu.errors import ConfigError
from canhazgpu.node.identity import boot_id
from canhazgpu.node.process_id import ProcessId
from canhazgpu.node.processes import identify_process
from canhazgpu.probe.bounded_child import die_with_parent


@dataclass(frozen=True, slots=True)
class Watcher:
    """What a watcher of this node does; `environ` is the agent's."""

    node: str
    state_dir: Path
    environ: Mapping[str, str]
    read_config: Callable[[], Config]
    scanner_socket: Path

    def run(self, parent: int) -> None:
        """Be the watcher of this agent (its pid), in a new process, until nothing is left to do."""
        die_with_parent(parent)()
        become_fresh(())
        use_environment(self.environ)
        # Its children share its memory for as long as nobody writes to it.
        gc.freeze()
        agent = identify_process(parent) or ProcessId(parent, 0)
        carry_out([self._journal(), self._runs(agent)])

    def _journal(self) -> JournalDelivery:
        try_once = partial(deliver, self.node, self.environ, self.read_config)
        return JournalDelivery(self.node, self.state_dir, try_once)

    def _runs(self, agent: ProcessId) -> RunDuty:
        ports = NodePorts(self.node, self.environ, self.read_config, self.scanner_socket)
        return RunDuty(
            self.node,
            boot_id(),
            RunsWatch(self.state_dir),
            agent,
            self._run_config().heartbeat_s,
            ports,
        )

    def _run_config(self) -> RunConfig:
        """Return the configuration of runs; the defaults where it cannot be read."""
        try:
            return self.read_config().run
        except ConfigError:
            return RunConfig()
