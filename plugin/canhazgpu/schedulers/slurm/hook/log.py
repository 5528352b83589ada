"""What one run of a hook observed, did and logged, for the history and for syslog."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from canhazgpu.gpu.scan import GpuReading
from canhazgpu.gpu.usage import processes_text, users_text
from canhazgpu.ledger.journal_entries import JournalEntry
from canhazgpu.ledger.local.fallback_ledger import FallbackLedger
from canhazgpu.ledger.port import Observation
from canhazgpu.ledger.values import Claim, GrantedGpus, JobOwner
from canhazgpu.logfmt import log_line
from canhazgpu.node.drain_record import DrainRecord
from canhazgpu.node.system_log import DAEMON_INFO, single_line, write_syslog
from canhazgpu.probe.port import GpuProbe, PendingScan
from canhazgpu.schedulers.port import ActionResult
from canhazgpu.schedulers.slurm.control.actions import SlurmActions
from canhazgpu.schedulers.slurm.control.commands import SlurmCommands
from canhazgpu.schedulers.slurm.control.comment_text import shortened_comment

MAX_REASON_LENGTH = 400


@dataclass(slots=True)
class HookLog:
    """The log of one run of a hook, filled while it runs.

    `ledger` is the ledger that the hook opened, None before. `ended_owner` is the attempt that an
    epilog ended: for a requeued job, slurmd gives the epilog the next attempt's number.
    """

    started_at: float = field(default_factory=time.monotonic)
    last_observation: Observation | None = None
    messages: list[str] = field(default_factory=list)
    ledger: FallbackLedger | None = None
    ended_owner: JobOwner | None = None

    def took_s(self) -> float:
        """Return how long the hook has run, to the millisecond."""
        return round(time.monotonic() - self.started_at, 3)

    def outcome(self) -> str:
        """Return the outcome for the job's GPUs, in one word."""
        if self.ledger is None:
            return "fault"
        if isinstance(self.ledger.last_answer, GrantedGpus):
            return "granted"
        if self.ledger.last_answer is not None:
            return "refused"
        return "released" if self.ledger.released else "nothing"

    def gpus(self) -> tuple[str, ...]:
        """Return the GPUs that were granted or released."""
        if self.ledger is None:
            return ()
        answer = self.ledger.last_answer
        return answer.gpus if isinstance(answer, GrantedGpus) else tuple(self.ledger.released)

    def history_entry(self, kind: str, claim: Claim) -> JournalEntry:
        """Return the hook's entry for the history."""
        facts: dict[str, Any] = {
            "outcome": self.outcome(),
            "took_s": self.took_s(),
            "gpus": list(self.gpus()),
            "seen": []
            if self.last_observation is None
            else _notable_gpus(self.last_observation, self.gpus()),
        }
        if self.ledger is not None and self.ledger.without_store:
            facts["without_store"] = self.ledger.without_store
        return JournalEntry(kind, 0.0, claim.owner, claim=claim, reason=self.reason(), facts=facts)

    def reason(self) -> str:
        """Return the logged messages as one text, "" if there are none."""
        return shortened_comment("; ".join(self.messages), MAX_REASON_LENGTH)

    def syslog_line(self, kind: str, node: str, claim: Claim) -> str:
        """Return the hook's line for syslog."""
        return log_line(
            kind,
            node=node,
            job=claim.job_id,
            owner=claim.owner,
            user=claim.user,
            outcome=self.outcome(),
            gpus=self.gpus() or None,
            took_s=self.took_s(),
            without_store=(self.ledger and self.ledger.without_store) or None,
            reason=self.reason() or None,
        )


def write_hook_log(hook_log: HookLog, kind: str, node: str, claim: Claim) -> None:
    """Write the hook's line to syslog, and its entry to the history if it opened a ledger."""
    write_syslog(hook_log.syslog_line(kind, node, claim), DAEMON_INFO)
    if hook_log.ledger is not None:
        hook_log.ledger.record_note(hook_log.history_entry(kind, claim))


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
        self._hook_log.messages.append(single_line(message))
        super().log(message)

    def drain(self, node: str, note: str) -> ActionResult:
        """See `JobActions.drain`; recorded before, so that the health check can undo it."""
        self._drains.note_drained()
        return super().drain(node, note)


class LoggedProbe:
    """`GpuProbe` that keeps its last observation in the hook's log.

    `first` is a scan that runs already, which the first `start` returns.
    """

    def __init__(
        self, probe: GpuProbe, hook_log: HookLog, first: PendingScan | None = None
    ) -> None:
        self._probe = probe
        self._hook_log = hook_log
        self._first = first

    def start(self) -> PendingScan:
        """See `GpuProbe.start`."""
        pending, self._first = self._first or self._probe.start(), None
        return _LoggedScan(pending, self._hook_log)


class _LoggedScan:
    def __init__(self, pending: PendingScan, hook_log: HookLog) -> None:
        self._pending = pending
        self._hook_log = hook_log

    def observe(self) -> Observation:
        self._hook_log.last_observation = self._pending.observe()
        return self._hook_log.last_observation


def _notable_gpus(observation: Observation, own: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return entries for the job's own GPUs, and for those that are not free."""
    return [
        _gpu_entry(gpu, _gpu_state(gpu, observation))
        for gpu in observation.scan.gpus
        if gpu.uuid in own or _gpu_state(gpu, observation) != "free"
    ]


def _gpu_state(gpu: GpuReading, observation: Observation) -> str:
    if gpu.uuid in observation.unhealthy:
        return "unhealthy"
    if gpu.uuid in observation.unknown or gpu.fault is not None:
        return "unknown"
    return "in use" if gpu.uuid in observation.in_use else "free"


def _gpu_entry(gpu: GpuReading, state: str) -> dict[str, Any]:
    entry: dict[str, Any] = {"gpu": gpu.uuid, "place": gpu.display_index, "state": state}
    if gpu.held_memory_mb is not None:
        entry["used_mb"] = gpu.held_memory_mb
    if gpu.processes:
        entry["who"] = f"{users_text(gpu.processes)}: {processes_text(gpu.processes)}"
    if gpu.fault:
        entry["fault"] = gpu.fault
    return entry
