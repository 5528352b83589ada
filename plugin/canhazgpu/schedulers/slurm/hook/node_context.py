"""The context of a hook: the node that it runs on, its job, and the parts that it uses."""

from __future__ import annotations

import socket
from collections.abc import Collection, Mapping
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from canhazgpu.allocation.allocator import GpuAllocator
from canhazgpu.allocation.liveness import LivenessContext
from canhazgpu.config.schema import Config
from canhazgpu.errors import ConfigError, ScanError, VoidGrantError
from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.ledger.local.fallback_ledger import FallbackLedger
from canhazgpu.ledger.local.jobs.job_records import JobRecords
from canhazgpu.ledger.port import Ledger
from canhazgpu.ledger.store.connect import import_client
from canhazgpu.ledger.values import Reservation
from canhazgpu.node.drain_record import DrainRecord
from canhazgpu.node.identity import boot_id, node_name, pid_namespace, state_dir
from canhazgpu.node.processes import is_alive
from canhazgpu.probe.accounting.enabled import accounting_is_enabled
from canhazgpu.probe.port import GpuProbe
from canhazgpu.schedulers.port import JobContext
from canhazgpu.schedulers.slurm.conf.cluster_name import owner_cluster_name
from canhazgpu.schedulers.slurm.conf.device_mapping import gpus_at_positions
from canhazgpu.schedulers.slurm.conf.node_conf import (
    SlurmNodeConf,
    conf_path,
    read_node_conf,
)
from canhazgpu.schedulers.slurm.control.commands import SlurmCommands
from canhazgpu.schedulers.slurm.control.job_presence import JobPresence
from canhazgpu.schedulers.slurm.environment import CLUSTER_NAME
from canhazgpu.schedulers.slurm.hook.attempt import StartedAttempt
from canhazgpu.schedulers.slurm.hook.job_environment import parse_job_context
from canhazgpu.schedulers.slurm.hook.log import HookLog
from canhazgpu.schedulers.slurm.hook.logged_ports import LoggedActions, LoggedProbe
from canhazgpu.schedulers.slurm.hook.node_ledger import node_ledger
from canhazgpu.schedulers.slurm.hook.startup import (
    ScanSources,
    StartedHook,
    read_hook_config,
    scan_in_child,
)

if TYPE_CHECKING:
    from canhazgpu.ledger.local.book.rebuilt_book import SchedulersJob

MIN_HOOK_TIME_S = 1.0
LOG_MARGIN_S = 8.0
"""What a hook takes at most after its deadline, beside Slurm's commands: mostly for its log."""


@dataclass(frozen=True, slots=True)
class NodeContext:
    """The node that a hook runs on, and the parts that the hook uses.

    `cluster` is encoded as in an owner's token; empty if neither Slurm nor its files name it.
    """

    node: str
    cluster: str
    conf: Path
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
    in_job: bool

    def ledger(self) -> FallbackLedger:
        """Return the node's ledger; Redis' client is imported on the first use.

        Raises `ConfigError` without a readable configuration: the default store is not the node's.
        """
        if self.config_fault is not None:
            raise self.config_fault
        self.hook_log.ledger = node_ledger(self)
        return self.hook_log.ledger

    def has_ended(self) -> bool:
        """Return whether the attempt that this hook starts has ended meanwhile."""
        return False

    def peer_lives(self) -> bool:
        """Return whether the process that asked for the attempt's GPUs still waits."""
        return True

    def jobs_here(self, known: Collection[str]) -> list[SchedulersJob]:
        """Return the jobs that Slurm has here, see `NodeJobs`; where the node's book was lost."""
        from canhazgpu.node.job_lock import is_in_hook  # noqa: PLC0415 - hardly ever needed
        from canhazgpu.schedulers.slurm.control.node_jobs import NodeJobs, places_are_certain  # noqa: PLC0415 - hardly ever needed

        certain = places_are_certain(
            self.config.slurm, constrained=self.node_conf.constrains_devices
        )
        uuids_at = self._uuids_at if certain else None
        return NodeJobs(
            self.node,
            self.cluster,
            self.boot_id,
            self.commands,
            uuids_at,
            partial(is_in_hook, self.state_dir),
        ).with_gpus(known)

    def _uuids_at(self, positions: tuple[int, ...]) -> tuple[str, ...]:
        """Return the GPUs at these places in gres.conf; raises `ScanError` and `InputError`."""
        from canhazgpu.schedulers.slurm.hook.slurmd_gpus_record import slurms_devices  # noqa: PLC0415 - hardly ever needed

        scan = self.probe.start().observe().scan
        if scan.fault is not None:
            raise ScanError(scan.fault)
        devices = slurms_devices(self.state_dir, self.node_conf, scan.gpus)
        return tuple(one.uuid for one in gpus_at_positions(positions, devices, scan.gpus))

    def import_store_client(self) -> None:
        """Import the store's client before a clock runs; not where no store may be asked.

        And what few sites want, which nothing else imports.
        """
        if self.config_fault is None:
            import_client(self.config.store)
        if self.config.metrics.dcgm_mapping_dir:
            import canhazgpu.ledger.local.dcgm_mapping  # noqa: PLC0415
        if accounting_is_enabled(self.config.validation):
            import canhazgpu.probe.accounting.job_use  # noqa: PLC0415
        if self.config.slurm.job_report != "off":
            import canhazgpu.schedulers.slurm.job_report.delivery  # noqa: F401, PLC0415

    def keep_job_files(self) -> None:
        """Tell dcgm-exporter which jobs hold the GPUs, where the site has it; never raises."""
        directory, seen = self.config.metrics.dcgm_mapping_dir, self.hook_log.last_observation
        if directory and seen is not None:
            from canhazgpu.ledger.local.dcgm_mapping import keep_job_files  # noqa: PLC0415 - few sites have it

            keep_job_files(Path(directory), self.state_dir, self.node, self.boot_id, seen.scan)

    def liveness_context(self) -> LivenessContext:
        """Return what decides whether an owner on this node is alive."""
        return LivenessContext(self.boot_id, pid_namespace(), is_alive)


@dataclass(frozen=True, slots=True)
class JobHook(NodeContext):
    """One run of a hook, and its job; a prolog also has the attempt that it starts."""

    job: JobContext
    attempt: StartedAttempt | None = None

    @property
    def time_left_s(self) -> float:
        """How long the hook may still take; the time since its start counts."""
        left_s = self.config.slurm.hook_deadline_s - self.hook_log.took_s()
        return max(round(left_s, 1), MIN_HOOK_TIME_S)

    @property
    def longest_s(self) -> float:
        """What the hook takes at most from now on, with Slurm's commands and the log."""
        return self.time_left_s + self.config.slurm.command_timeout_s + LOG_MARGIN_S

    def has_ended(self) -> bool:
        """See `NodeContext.has_ended`."""
        return self.attempt is not None and self.attempt.has_ended()

    def peer_lives(self) -> bool:
        """See `NodeContext.peer_lives`."""
        return self.attempt is None or self.attempt.peer_lives()

    def raise_if_fenced(self) -> None:
        """Raise `VoidGrantError` where nothing may be granted any more."""
        if self.has_ended() or not self.peer_lives():
            raise VoidGrantError("its epilog has run, or its prolog was killed")

    def allocator(self, ledger: Ledger) -> GpuAllocator:
        """Return this node's allocator."""
        return GpuAllocator(
            self.node, self.liveness_context(), self.probe, ledger, self._is_finished_job
        )

    def _is_finished_job(self, reservation: Reservation) -> bool:
        """Tell whether another job of this cluster holds the GPU, and Slurm says it is finished."""
        claim, own = reservation.claim, self.job.owner
        return (
            claim.job_id is not None
            and claim.job_id != own.job_id
            and claim.owner.startswith(f"job:{own.cluster}:{claim.job_id}:")
            and self.actions.is_finished(claim.job_id)
        )


def open_node_context(
    environ: Mapping[str, str],
    started: StartedHook | None = None,
    scan_sources: ScanSources = scan_in_child,
) -> NodeContext:
    """Return the context of this process, which takes over what `started` holds.

    If the configuration cannot be read, `config_fault` says why and the defaults apply: they
    suffice to requeue a job.
    """
    started = started or read_hook_config(environ, scan_sources)
    config, fault = started.config, started.config_fault
    hook_log = HookLog(started.started_at)
    node = node_name(config.node, environ)
    conf = conf_path(environ)
    try:
        node_conf = read_node_conf(conf, node, socket.gethostname().split(".")[0])
    except ConfigError as exc:
        node_conf, fault = SlurmNodeConf(node, False, (), (), None), fault or exc
    commands = SlurmCommands(config.slurm.bin_dir, config.slurm.command_timeout_s, environ)
    directory = state_dir(config.node, node)
    return NodeContext(
        node=node,
        cluster=owner_cluster_name(environ.get(CLUSTER_NAME, "")) or node_conf.cluster,
        conf=conf,
        config=config,
        config_fault=fault,
        node_conf=node_conf,
        boot_id=boot_id(),
        state_dir=directory,
        records=JobRecords(directory),
        probe=LoggedProbe(started.probe, hook_log, started.scan, lambda: node_conf.partitions),
        actions=LoggedActions(commands, node_conf.log_file, hook_log, DrainRecord(directory)),
        commands=commands,
        presence=JobPresence(node, node_conf.spool_dir, commands),
        hook_log=hook_log,
        is_retry=started.is_retry,
        in_job=started.in_job,
    )


def open_job_hook(context: NodeContext, environ: Mapping[str, str]) -> JobHook:
    """Return the hook of this process's job; raises `InputError` for an invalid variable."""
    parts = {one.name: getattr(context, one.name) for one in fields(context)}
    return JobHook(**parts, job=parse_job_context(environ, context.node))
