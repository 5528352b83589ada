"""What Slurm's prolog and epilog have in common: their configuration, tools, and way to fail.

Whatever goes wrong in a hook, the node must not be drained for it: Slurm drains a node whose hook
exits non-zero. So every fault becomes a decision about the job and a line in the log.
"""

from __future__ import annotations

import socket
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

from canhazgpu.allocation.allocator import GpuAllocator
from canhazgpu.allocation.liveness import LivenessContext
from canhazgpu.config.schema import Config
from canhazgpu.deadline import hard_deadline
from canhazgpu.errors import CanhazgpuError, ConfigError, InputError, advice_for, error_text
from canhazgpu.ledger.local.fallback_ledger import FallbackLedger
from canhazgpu.ledger.local.job_records import JobRecord, JobRecords
from canhazgpu.ledger.port import Ledger
from canhazgpu.ledger.values import Reservation
from canhazgpu.node.drain_record import DrainRecord
from canhazgpu.node.identity import boot_id, node_name, pid_namespace, state_dir
from canhazgpu.node.processes import is_alive
from canhazgpu.probe.port import GpuProbe
from canhazgpu.schedulers.port import JobContext, claim_of
from canhazgpu.schedulers.slurm import environment as names
from canhazgpu.schedulers.slurm.conf.node_conf import (
    SlurmNodeConf,
    default_conf_path,
    read_node_conf,
)
from canhazgpu.schedulers.slurm.control.actions import write_syslog
from canhazgpu.schedulers.slurm.control.commands import SlurmCommands
from canhazgpu.schedulers.slurm.control.job_presence import JobPresence
from canhazgpu.schedulers.slurm.hook.job_environment import parse_job_context
from canhazgpu.schedulers.slurm.hook.log import HookLog, LoggedActions, LoggedProbe, write_hook_log
from canhazgpu.schedulers.slurm.hook.node_ledger import node_ledger
from canhazgpu.schedulers.slurm.hook.startup import OPEN_DEADLINE_S, StartedHook, read_hook_config

MIN_HOOK_TIME_S = 1.0
LOG_DEADLINE_S = 3.0
"""Longest time for telling what was done, above the patience with the store; what has come into the
journal is told later."""


@dataclass(frozen=True, slots=True)
class NodeContext:
    """The node that a hook runs on, and everything it works with."""

    node: str
    config: Config
    config_fault: ConfigError | None
    node_conf: SlurmNodeConf
    boot_id: str | None
    state_dir: Path
    records: JobRecords
    probe: GpuProbe
    actions: LoggedActions
    commands: SlurmCommands
    presence: JobPresence
    hook_log: HookLog
    is_retry: bool

    def ledger(self) -> FallbackLedger:
        """Return the node's ledger; the store's client is imported when it is first asked."""
        self.hook_log.ledger = node_ledger(self)
        return self.hook_log.ledger

    def here(self) -> LivenessContext:
        """Return the node as this process sees it."""
        return LivenessContext(self.boot_id, pid_namespace(), is_alive)


@dataclass(frozen=True, slots=True)
class JobHook(NodeContext):
    """One run of a hook, and its job."""

    job: JobContext

    @property
    def time_left_s(self) -> float:
        """How long the hook may take from now on; what it took to begin with counts."""
        left_s = self.config.slurm.hook_deadline_s - self.hook_log.took_s()
        return max(round(left_s, 1), MIN_HOOK_TIME_S)

    def service(self, ledger: Ledger) -> GpuAllocator:
        """Return the service of this node."""
        return GpuAllocator(self.node, self.here(), self.probe, ledger, self._is_gone)

    def _is_gone(self, reservation: Reservation) -> bool:
        """Tell whether the holder is another job of this cluster that Slurm has no more."""
        claim, own = reservation.claim, self.job.owner
        return (
            claim.job_id is not None
            and claim.job_id != own.job_id
            and claim.owner.startswith(f"job:{own.cluster}:{claim.job_id}:")
            and self.actions.is_finished(claim.job_id)
        )


def open_node_context(environ: Mapping[str, str], begun: StartedHook | None = None) -> NodeContext:
    """Return the node of this process, going on with what was begun.

    A configuration that cannot be read is kept as `config_fault`, with the defaults in its place:
    they suffice to send a job back.
    """
    begun = begun or read_hook_config(environ)
    config, fault = begun.config, begun.config_fault
    story = HookLog(begun.started_at)
    node = node_name(config.node, environ)
    conf = Path(environ.get(names.SLURM_CONF) or default_conf_path())
    try:
        facts = read_node_conf(conf, node, socket.gethostname().split(".")[0])
    except ConfigError as exc:
        facts, fault = SlurmNodeConf(node, False, (), (), None), fault or exc
    commands = SlurmCommands(config.slurm.bin_dir, config.slurm.command_timeout_s, environ)
    place = state_dir(config.node, node)
    return NodeContext(
        node=node,
        config=config,
        config_fault=fault,
        node_conf=facts,
        boot_id=boot_id(),
        state_dir=place,
        records=JobRecords(place),
        probe=LoggedProbe(begun.probe, story, begun.scan),
        actions=LoggedActions(commands, facts.log_file, story, DrainRecord(place)),
        commands=commands,
        presence=JobPresence(node, facts.spool_dir, commands),
        hook_log=story,
        is_retry=begun.is_retry,
    )


def open_job_hook(side: NodeContext, environ: Mapping[str, str]) -> JobHook:
    """Return the hook of this process's job; raises `InputError` for variables without sense."""
    parts = {one.name: getattr(side, one.name) for one in fields(side)}
    return JobHook(**parts, job=parse_job_context(environ, side.node))


def run_hook(
    environ: Mapping[str, str],
    act: Callable[[JobHook], None],
    kind: str,
    begun: StartedHook | Exception | None = None,
) -> int:
    """Open the hook, act, and tell of it as that kind; returns the exit status for slurmd.

    `begun` is what was begun before, or what stopped that.
    Non-zero only for variables that make no sense, and never to slurmd: a later Slurm that says
    things in another way would drain all of its nodes, which could run jobs.
    """
    try:
        with hard_deadline(OPEN_DEADLINE_S):
            if isinstance(begun, Exception):
                raise begun
            side = open_node_context(environ, begun)
    except Exception as exc:
        # Without the job there is nothing to send back; it starts unchecked, and that is said.
        log_emergency(hook_error_text(exc))
        return 0
    try:
        hook = open_job_hook(side, environ)
    except InputError as exc:
        print(f"canhazgpu: {exc}", file=sys.stderr)  # noqa: T201 - for whoever runs it by hand
        if names.SCRIPT_CONTEXT not in environ:
            return advice_for(exc).exit_code
        side.actions.log(f"{exc}; no GPU is checked, reserved or released (please report this)")
        return 0
    except Exception as exc:
        log_emergency(hook_error_text(exc))
        return 0
    try:
        act(hook)
        with hard_deadline(LOG_DEADLINE_S):
            log_outcome(hook, kind)
    except Exception as exc:
        log_emergency(hook_error_text(exc))
    return 0


def log_outcome(hook: JobHook, kind: str) -> None:
    """Tell what the hook did, unless there was nothing for it to do."""
    if hook.hook_log.ledger is not None or hook.hook_log.messages:
        job = replace(hook.job, owner=hook.hook_log.ended or hook.job.owner)
        claim = claim_of(job, names.SCHEDULER_TYPE, hook.boot_id)
        write_hook_log(hook.hook_log, kind, hook.node, claim)


def log_emergency(message: str) -> None:
    """Say what must not be lost, to whoever listens."""
    print(f"canhazgpu: {message}", file=sys.stderr)  # noqa: T201 - shown if Slurm shows anything
    write_syslog(message)


def release_ended_jobs(service: GpuAllocator, records: JobRecords, ended: list[JobRecord]) -> None:
    """Release what ended attempts still hold, and forget their records. Raises `StoreError`."""
    for record in ended:
        service.release(record.owner.token, "job ended")
        records.forget(record.owner)


def hook_error_text(error: Exception) -> str:
    """Return a fault as one sentence with the next step; an unforeseen one with its place."""
    if isinstance(error, CanhazgpuError):
        return error_text(error)
    place = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(place.filename).name}:{place.lineno}"
    return f"internal error at {where}: {type(error).__name__}: {error} (please report this)"
