"""A hook's actions and probe, which also fill the hook's log."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from canhazgpu.errors import InputError
from canhazgpu.ledger.port import Observation
from canhazgpu.node.drain_record import DrainRecord
from canhazgpu.node.system_log import single_line
from canhazgpu.probe.port import GpuProbe, PendingScan
from canhazgpu.schedulers.port import ActionResult
from canhazgpu.schedulers.slurm.control.actions import SlurmActions
from canhazgpu.schedulers.slurm.control.commands import SlurmCommands
from canhazgpu.schedulers.slurm.control.shortened_comment import shortened_comment
from canhazgpu.schedulers.slurm.hook.log import MAX_WHY_LENGTH, HookDecision, HookLog

NODE_EVENT = "event="
"""The beginning of a line about the node and its store, not about the job."""
_JOB_PREFIX = re.compile(r"job [0-9]+: ")


class LoggedActions(SlurmActions):
    """`SlurmActions` that also adds log lines to the hook's log, and records drains."""

    def __init__(
        self, commands: SlurmCommands, log_file: Path | None, hook_log: HookLog, drains: DrainRecord
    ) -> None:
        super().__init__(commands, log_file)
        self._hook_log = hook_log
        self._drains = drains

    def log(self, message: str) -> None:
        """See `JobActions.log`."""
        text = single_line(message)
        self._hook_log.messages.append(shortened_comment(text, MAX_WHY_LENGTH))
        if not text.startswith(NODE_EVENT):
            self._hook_log.decisions.append(HookDecision(_JOB_PREFIX.sub("", text, count=1)))
        super().log(message)

    def log_decision(self, job_id: str, decision: HookDecision) -> None:
        """Log a decision about the job, whose reason the history keeps apart."""
        one = replace(decision, what=single_line(decision.what), why=single_line(decision.why))
        self._hook_log.messages.append(f"job {job_id}: {one.shortened().text}")
        self._hook_log.decisions.append(one)
        super().log(f"job {job_id}: {one.text}")

    def drain(self, node: str, note: str) -> ActionResult:
        """See `JobActions.drain`; recorded before, so that the health check can undo it."""
        self._drains.note_drained()
        return super().drain(node, note)


class LoggedProbe:
    """`GpuProbe` that keeps its last observation in the hook's log.

    `first` is a scan that runs already, which the first `start` returns. `partitions` returns the
    node's partitions, which are published with the scan; they stay as they are published where it
    raises `InputError`.
    """

    def __init__(
        self,
        probe: GpuProbe,
        hook_log: HookLog,
        first: PendingScan | None = None,
        partitions: Callable[[], tuple[str, ...]] | None = None,
    ) -> None:
        self._probe = probe
        self._hook_log = hook_log
        self._first = first
        self._partitions = partitions

    def start(self) -> PendingScan:
        """See `GpuProbe.start`."""
        pending, self._first = self._first or self._probe.start(), None
        return _LoggedScan(pending, self._hook_log, self._known_partitions)

    def _known_partitions(self) -> tuple[str, ...] | None:
        try:
            return None if self._partitions is None else self._partitions()
        except InputError:
            return None


class _LoggedScan:
    def __init__(
        self,
        pending: PendingScan,
        hook_log: HookLog,
        partitions: Callable[[], tuple[str, ...] | None],
    ) -> None:
        self._pending = pending
        self._hook_log = hook_log
        self._partitions = partitions

    def observe(self) -> Observation:
        observation = replace(self._pending.observe(), partitions=self._partitions())
        self._hook_log.last_observation = observation
        return self._hook_log.last_observation
