"""The watcher: the agent's process that does what no request asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from canhazgpu.agent.handler.fresh_process import become_fresh, use_environment
from canhazgpu.agent.watcher.duty import carry_out
from canhazgpu.agent.watcher.journal_delivery import JournalDelivery
from canhazgpu.config.schema import Config
from canhazgpu.probe.bounded_child import die_with_parent


@dataclass(frozen=True, slots=True)
class Watcher:
    """What a watcher of this node does; `environ` is the agent's."""

    node: str
    environ: Mapping[str, str]
    read_config: Callable[[], Config]

    def run(self, parent: int) -> None:
        """Be the watcher of this agent (its pid), in a new process, until nothing is left to do."""
        die_with_parent(parent)()
        become_fresh(())
        use_environment(self.environ)
        carry_out([JournalDelivery(self.node, self.environ, self.read_config)])
