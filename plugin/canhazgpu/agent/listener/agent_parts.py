"""What an agent has for its requests and beside them; a host without GPUs has less of it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from canhazgpu.agent.command_runner import CommandRunner
from canhazgpu.agent.handler.command_request import run_command_request
from canhazgpu.agent.handler.hook_request import run_hook_request
from canhazgpu.agent.handler.job_check_request import refuse_job_check, run_job_check
from canhazgpu.agent.handler.preparation import prepare_handler
from canhazgpu.agent.handler.serve import Runners, run_spare_handler
from canhazgpu.agent.listener.helpers import Helpers
from canhazgpu.agent.listener.scanner_starter import ScannerStarter
from canhazgpu.agent.listener.spare_handler import SpareHandlers
from canhazgpu.agent.listener.watcher_starter import WatcherStarter
from canhazgpu.agent.metrics_writer import MetricsWriterProcess
from canhazgpu.agent.orders.order_reader import OrderReaderProcess
from canhazgpu.agent.respawned_process import RespawnedProcess
from canhazgpu.agent.socket_files import SCANNER_SOCKET, agent_directory
from canhazgpu.agent.watcher.journal_watch import JournalWatch
from canhazgpu.agent.watcher.process import WaitingSocket, Watcher
from canhazgpu.agent.watcher.queue.command_answers import CommandAnswers
from canhazgpu.agent.watcher.runs.runs_watch import RunsWatch
from canhazgpu.config.host_role import has_own_gpus
from canhazgpu.config.schema import Config
from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.in_process.orders.at_health_check import CHECK
from canhazgpu.ledger.store.url import EMBEDDED
from canhazgpu.schedulers.slurm.job_check.node_environment import node_environment


@dataclass(frozen=True, slots=True)
class PrivateSockets:
    """Where the agent's own processes ask for scans, and hand over clients that wait."""

    scanner: socket.socket
    queue: socket.socket


@dataclass(frozen=True, slots=True)
class AgentParts:
    """The parts of one agent, by its configuration; `environ` is the agent's environment."""

    node: str
    directory: Path
    config: Config
    environ: Mapping[str, str]
    read_config: Callable[[], Config]
    commands: CommandRunner

    @property
    def is_node(self) -> bool:
        """Whether this host has GPUs."""
        return has_own_gpus(self.config)

    @property
    def scanner_socket(self) -> Path:
        """The socket of the node's scanner."""
        return agent_directory(self.directory) / SCANNER_SOCKET

    def runners(self) -> Runners:
        """Return what carries out requests."""
        of_node = node_environment(self.environ)
        check_job = partial(run_job_check, self.scanner_socket, of_node)
        return Runners(
            partial(run_hook_request, self.scanner_socket),
            check_job if self.is_node else refuse_job_check,
            partial(run_command_request, self.scanner_socket, of_node, self.commands),
        )

    def helpers(
        self,
        fault: Callable[[str], None],
        private: PrivateSockets | None,
        runners: Runners,
        reports: int,
    ) -> Helpers:
        """Return the processes beside the handlers; none without their sockets."""
        if private is None:
            return Helpers(fault)
        prepare = partial(prepare_handler, self.environ)
        spare = SpareHandlers(
            lambda end, prepares: run_spare_handler(
                end, reports, prepare if prepares else _nothing, runners
            )
        )
        scanning = ScannerStarter(private.scanner, self.config.agent.driver_idle_s)
        kept = [*self._order_reader(), *self._metrics_writer()]
        return Helpers(fault, scanning, self._watcher(private.queue), spare, kept)

    def _watcher(self, queue: socket.socket) -> WatcherStarter:
        watching = Watcher(
            self.node,
            self.directory,
            self.environ,
            self.read_config,
            self.scanner_socket,
            WaitingSocket(queue, partial(CommandAnswers, self.commands, self.node)),
        )
        journal, runs = JournalWatch(self.directory), RunsWatch(self.directory)
        return WatcherStarter(journal, runs, watching.run, queue)

    def _order_reader(self) -> Iterator[RespawnedProcess]:
        """Yield the order reader; none where the health check takes the orders."""
        # Nobody but this node reaches its private server, so nobody orders there.
        if self.config.agent.orders == CHECK or self.config.store.url == EMBEDDED:
            return
        reader = OrderReaderProcess(self.node, self.environ, self.read_config, self.scanner_socket)
        yield RespawnedProcess("order reader", reader.run)

    def _metrics_writer(self) -> Iterator[RespawnedProcess]:
        """Yield the metrics writer; none where the node writes no metrics."""
        if self.config.metrics.textfile or self.config.metrics.publishes_counters:
            writer = MetricsWriterProcess(self.node, self.directory, self.environ, self.read_config)
            yield RespawnedProcess("metrics writer", writer.run)


def _nothing() -> None:
    """Prepare nothing: the request is there already."""
