"""Prepare the command of a run after its grant: start the run's monitor, build the environment."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from canhazgpu.errors import NodeStateError
from canhazgpu.in_process.grants.acquisition import Acquisition, open_allocator
from canhazgpu.ledger.release_reasons import COMMAND_NOT_STARTED
from canhazgpu.node.daemonize import spawn_daemon
from canhazgpu.node.identity import state_dir
from canhazgpu.node.run_marker import new_run_marker
from canhazgpu.people.command_environment import run_environment
from canhazgpu.people.run_monitor import MonitoredRun, RunMonitor, run_monitor_process
from canhazgpu.probe.accounting.enabled import accounting_is_enabled

if TYPE_CHECKING:
    from canhazgpu.allocation.allocator import Grant
    from canhazgpu.in_process.adapters import Adapters
    from canhazgpu.ledger.port import Ledger
    from canhazgpu.node.process_watch import ProcessWatch
    from canhazgpu.probe.accounting.run_use import RunUses
    from canhazgpu.service.grants import RunRequest

MONITOR_READY = b"ready"


class CommandStart:
    """The start of a command with the GPUs of a grant."""

    def __init__(
        self, adapters: Adapters, acquisition: Acquisition, grant: Grant, request: RunRequest
    ) -> None:
        self._adapters = adapters
        self._acquisition = acquisition
        self._grant = grant
        self._request = request
        self._marker = new_run_marker(acquisition.claim.owner)

    def prepare_command(self) -> dict[str, str]:
        """Start the run's monitor, and return the command's environment.

        On any error the GPUs are released. Raises `NodeStateError` if the monitor does not start.
        """
        try:
            environment = run_environment(
                self._adapters.environ_of_command,
                self._marker,
                self._grant.gpus,
                self._acquisition.config.run.export,
            )
            self._start_monitor()
            return environment
        except BaseException:
            ledger, node = self._acquisition.ledger, self._acquisition.node
            ledger.release(node, self._acquisition.claim.owner, COMMAND_NOT_STARTED)
            raise

    def _start_monitor(self) -> None:
        (command,) = self._acquisition.claim.processes
        try:
            reply = spawn_daemon(
                partial(run_monitor_process, create_monitor=self._create_monitor, command=command)
            )
        except OSError as exc:
            raise NodeStateError(
                f"cannot start a process: {exc.strerror}",
                next_step="compare the limits of processes and memory: 'ulimit -a'",
            ) from exc
        if reply != MONITOR_READY:
            raise NodeStateError(
                "the process that keeps the reservation did not start",
                next_step="compare the limits of processes and memory: 'ulimit -a'",
            )

    def _create_monitor(self, watch: ProcessWatch) -> RunMonitor:
        claim = self._acquisition.claim
        run = MonitoredRun(
            node=self._acquisition.node,
            owner=claim.owner,
            marker=self._marker,
            command=claim.processes[0],
            heartbeat_s=self._acquisition.config.run.heartbeat_s,
            timeout_s=self._request.timeout_s,
            ends_when_lost=self._request.ends_when_lost,
        )
        return RunMonitor(run, watch, self._open_ledger, self._restore, self._begin_use)

    def _open_ledger(self) -> Ledger:
        # The monitor is a fork: it must not use its parent's connection.
        return self._adapters.writer(self._acquisition.config)

    def _begin_use(self, ledger: Ledger) -> RunUses | None:
        config, node = self._acquisition.config, self._acquisition.node
        if not accounting_is_enabled(config.validation):
            return None
        from canhazgpu.probe.accounting.run_use import RunUses  # noqa: PLC0415 - few sites want it

        (view,) = ledger.read_nodes([node])
        owners = [self._acquisition.claim.owner]
        return RunUses(config.validation, state_dir(config.node, node), view, owners)

    def _restore(self, ledger: Ledger) -> str:
        from canhazgpu.allocation.restore import restore_reservation  # noqa: PLC0415 - hardly ever needed

        node = self._acquisition.node
        probe = self._adapters.open_probe(node, self._acquisition.config)
        allocator = open_allocator(node, probe, ledger)
        gpus = [gpu.uuid for gpu in self._grant.gpus]
        return restore_reservation(ledger, allocator, self._acquisition.claim, gpus)
