"""The agent's metrics writer: a process that writes the node's metrics after each change.

It waits for a file of the node's own directory to change, as each hook, request and health check
changes one, and reads what they published: it scans no GPU.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from canhazgpu.agent.handler.fresh_process import become_fresh, use_environment
from canhazgpu.agent.watcher.directory_watch import DirectoryWatch
from canhazgpu.config.schema import Config
from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.in_process.adapters import Adapters
from canhazgpu.in_process.node_metrics import NodeMetricsWriter, log_failure
from canhazgpu.probe.bounded_child import die_with_parent
from canhazgpu.schedulers.slurm.job_check.node_environment import with_recorded_conf

REST_S = 5.0
"""Shortest time between two writings: a scrape comes every 15 s at most sites."""
LONGEST_WAIT_S = 60.0
"""After it the file is written without a change: waits and outages grow, and its time tells that
somebody still writes it."""


@dataclass(frozen=True, slots=True)
class MetricsWriterProcess:
    """The metrics writer of this node; `environ` is the agent's."""

    node: str
    state_dir: Path
    environ: Mapping[str, str]
    read_config: Callable[[], Config]

    def run(self, parent: int) -> None:
        """Be the metrics writer of this agent (its pid), in a new process, for as long as it."""
        die_with_parent(parent)()
        become_fresh(())
        use_environment(self.environ)
        adapters = Adapters(with_recorded_conf(self.environ))
        writer = NodeMetricsWriter(self.node, adapters)
        watch = DirectoryWatch(self.state_dir)
        told = ""
        while True:
            watch.forget_events()
            told = self._write(writer, parent, told)
            time.sleep(REST_S)
            _wait(watch)

    def _write(self, writer: NodeMetricsWriter, agent: int, told: str) -> str:
        """Write once; return what failed. It is logged unless it was `told` before."""
        try:
            # An administrator may have mended it.
            writer.write(self.read_config(), count_children(agent))
        except Exception as exc:
            if str(exc) != told:
                log_failure(self.node, exc)
            return str(exc)
        return ""


def count_children(pid: int) -> int | None:
    """Return how many child processes the process has, None where the kernel does not tell."""
    try:
        return len(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    except OSError:
        return None


def _wait(watch: DirectoryWatch) -> None:
    poll = select.poll()
    if watch.descriptor is not None:
        poll.register(watch.descriptor, select.POLLIN)
    poll.poll(LONGEST_WAIT_S * 1000)
