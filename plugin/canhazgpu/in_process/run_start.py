"""The step of a run from its grant to its command: the keeper first."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from canhazgpu.errors import NodeStateError
from canhazgpu.in_process.acquisition import Acquisition, open_service
from canhazgpu.node.daemonize import spawn_daemon
from canhazgpu.node.run_marker import new_run_marker
from canhazgpu.people.command_exec import run_environment
from canhazgpu.people.run_monitor import MonitoredRun, RunMonitor, run_monitor_process

if TYPE_CHECKING:
    from canhazgpu.allocation.allocator import Grant
    from canhazgpu.in_process.adapters import Adapters
    from canhazgpu.ledger.port import Ledger
    from canhazgpu.node.process_watch import ProcessWatch
    from canhazgpu.service.grants import RunRequest

READY = b"ready"
DID_NOT_START = "its command did not start"


class Start:
    """A command about to start with the GPUs of a grant."""

    def __init__(
        self, adapters: Adapters, acquisition: Acquisition, grant: Grant, request: RunRequest
    ) -> None:
        self._adapters = adapters
        self._acquisition = acquisition
        self._grant = grant
        self._request = request
        self._mark = new_run_marker(acquisition.claim.owner)

    def prepare(self) -> dict[str, str]:
        """Start the keeper, and return the command's environment.

        Where that fails, the GPUs are released.
        """
        try:
            self._start_keeper()
            return run_environment(
                self._adapters.environ,
                self._mark,
                self._grant.gpus,
                self._acquisition.config.run.export,
            )
        except BaseException:
            ledger, node = self._acquisition.ledger, self._acquisition.node
            ledger.release(node, self._acquisition.claim.owner, DID_NOT_START)
            raise

    def _start_keeper(self) -> None:
        (command,) = self._acquisition.claim.processes
        try:
            said = spawn_daemon(partial(run_monitor_process, make=self._keeper, command=command))
        except OSError as exc:
            raise NodeStateError(f"cannot start a process: {exc.strerror}") from exc
        if said != READY:
            raise NodeStateError("the process that keeps the reservation did not start")

    def _keeper(self, watch: ProcessWatch) -> RunMonitor:
        claim = self._acquisition.claim
        kept = MonitoredRun(
            node=self._acquisition.node,
            owner=claim.owner,
            marker=self._mark,
            command=claim.processes[0],
            heartbeat_s=self._acquisition.config.run.heartbeat_s,
            timeout_s=self._request.timeout_s,
            ends_when_lost=self._request.ends_when_lost,
        )
        return RunMonitor(kept, watch, self._open_ledger, self._restore)

    def _open_ledger(self) -> Ledger:
        # Its own connection: the one before belongs to the process that was forked from.
        return self._adapters.writer(self._acquisition.config.store)

    def _restore(self, ledger: Ledger) -> str:
        from canhazgpu.allocation.restore import restore_reservation  # noqa: PLC0415 - hardly ever needed

        node = self._acquisition.node
        probe = self._adapters.probe(node, self._acquisition.config.validation)
        service = open_service(node, probe, ledger)
        gpus = [gpu.uuid for gpu in self._grant.gpus]
        return restore_reservation(ledger, service, self._acquisition.claim, gpus)
