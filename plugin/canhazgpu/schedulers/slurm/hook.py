"""What Slurm's prolog and epilog have in common: their configuration, tools, and way to fail.

Whatever goes wrong in a hook, the node must not be drained for it: Slurm drains a node whose hook
exits non-zero. So every fault becomes a decision about the job and a line in the log.
"""

from __future__ import annotations

import socket
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from canhazgpu.config.load import load
from canhazgpu.config.schema import Config
from canhazgpu.deadline import hard_deadline
from canhazgpu.errors import CanhazgpuError, ConfigError, InputError, advice_for, explain
from canhazgpu.ledger.values import Reservation
from canhazgpu.node.alive import is_alive, pid_namespace
from canhazgpu.node.identity import boot_id, node_name, state_dir
from canhazgpu.node.records import JobRecord, JobRecords
from canhazgpu.people.gone import Here
from canhazgpu.probe.node_probe import NodeProbe
from canhazgpu.schedulers.port import JobContext
from canhazgpu.schedulers.slurm import environment as names
from canhazgpu.schedulers.slurm.actions import SlurmActions, log_to_system
from canhazgpu.schedulers.slurm.commands import SlurmCommands
from canhazgpu.schedulers.slurm.conf import SlurmFacts, read_facts
from canhazgpu.schedulers.slurm.context import job_context
from canhazgpu.service import GpuService

OPEN_DEADLINE_S = 4.0
"""Longest time for reading the configuration and Slurm's files, which may lie on a slow share."""


@dataclass(frozen=True, slots=True)
class Hook:
    """One run of a hook: its job and everything it works with."""

    job: JobContext
    config: Config
    config_fault: ConfigError | None
    facts: SlurmFacts
    boot_id: str | None
    records: JobRecords
    probe: NodeProbe
    actions: SlurmActions

    def ledger(self) -> FallbackLedger:
        """Return the ledger of this node; the store's client is imported with the first question."""
        return node_ledger(self)

    def service(self, ledger: Ledger) -> GpuService:
        """Return the service of this node."""
        here = Here(self.boot_id, pid_namespace(), is_alive)
        return GpuService(self.job.node, here, self.probe, ledger, self._is_gone)

    def _is_gone(self, reservation: Reservation) -> bool:
        """Tell whether the holder is another job of this cluster that Slurm has no more."""
        claim, own = reservation.claim, self.job.owner
        return (
            claim.job_id is not None
            and claim.job_id != own.job_id
            and claim.owner.startswith(f"job:{own.cluster}:{claim.job_id}:")
            and self.actions.is_gone(claim.job_id)
        )


def open_hook(environ: Mapping[str, str]) -> Hook:
    """Return the hook of this process; raises `InputError` where slurmd's variables make no sense.

    A configuration that cannot be read is kept as `config_fault`, with the defaults in its place:
    they suffice to send the job back.
    """
    fault = None
    try:
        config = load(environ).config
    except ConfigError as exc:
        config, fault = Config(), exc
    node = node_name(config.node, environ)
    conf = Path(environ.get(names.CONF) or names.DEFAULT_CONF)
    try:
        facts = read_facts(conf, node, socket.gethostname().split(".")[0])
    except ConfigError as exc:
        facts, fault = SlurmFacts(node, False, (), (), None), fault or exc
    commands = SlurmCommands(config.slurm.bin_dir, config.slurm.command_timeout_s, environ)
    return Hook(
        job=job_context(environ, node),
        config=config,
        config_fault=fault,
        facts=facts,
        boot_id=boot_id(),
        records=JobRecords(state_dir(config.node, node)),
        probe=NodeProbe(node, config.validation),
        actions=SlurmActions(commands, facts.log_file),
    )


def run_hook(environ: Mapping[str, str], act: Callable[[Hook], None]) -> int:
    """Open the hook and act; returns the exit status for slurmd.

    Non-zero, which drains the node, only where slurmd's own variables make no sense.
    """
    try:
        with hard_deadline(OPEN_DEADLINE_S):
            hook = open_hook(environ)
    except InputError as exc:
        print(f"canhazgpu: {exc}", file=sys.stderr)  # noqa: T201 - slurmd logs it
        return advice_for(exc).exit_code
    except Exception as exc:
        # Without the job there is nothing to send back; it starts unchecked, and that is said.
        _cry(fault_text(exc))
        return 0
    try:
        act(hook)
    except Exception as exc:
        _cry(fault_text(exc))
    return 0


def _cry(message: str) -> None:
    print(f"canhazgpu: {message}", file=sys.stderr)  # noqa: T201 - shown if Slurm shows anything
    log_to_system(message)


def settle(service: GpuService, records: JobRecords, ended: list[JobRecord]) -> None:
    """Release what ended attempts still hold, and forget their records. Raises `StoreError`."""
    for record in ended:
        service.release(record.owner.token, "job ended")
        records.forget(record.owner)


def fault_text(error: Exception) -> str:
    """Return a fault as one sentence with the next step; an unforeseen one with its place."""
    if isinstance(error, CanhazgpuError):
        return explain(error)
    place = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(place.filename).name}:{place.lineno}"
    return f"internal error at {where}: {type(error).__name__}: {error} (please report this)"
