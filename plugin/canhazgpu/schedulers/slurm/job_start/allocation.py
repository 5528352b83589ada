"""The allocation of one job's GPUs: attempts to reserve them, and the record of those granted."""

from __future__ import annotations

from collections.abc import Sequence

from canhazgpu.allocation.allocator import GpuAllocator, Grant
from canhazgpu.allocation.gpu_choice import GpuChoice
from canhazgpu.allocation.numbered_choice import NumberedByCuda, refuse_unnumbered
from canhazgpu.allocation.refusal import Refusal, RefusalKind
from canhazgpu.errors import ConfigError, InputError
from canhazgpu.gpu.assigned import AssignedGpu
from canhazgpu.gpu.health import count_whole_gpus, missing_gpus_text
from canhazgpu.gpu.scan import GpuReading
from canhazgpu.ledger.port import Ledger
from canhazgpu.probe.port import PendingScan
from canhazgpu.schedulers.port import claim_of
from canhazgpu.schedulers.slurm import environment as names
from canhazgpu.schedulers.slurm.conf.device_mapping import (
    count_present,
    gpus_at_positions,
    has_unlisted_gpus,
)
from canhazgpu.schedulers.slurm.hook.node_context import JobHook
from canhazgpu.schedulers.slurm.hook.slurmd_gpus_record import slurms_devices
from canhazgpu.schedulers.slurm.job_start.interchangeable_choice import InterchangeableChoice
from canhazgpu.schedulers.slurm.job_start.task_export import task_export

EXPORT_KEY = "slurm.export"


def scheduler_picks_devices(assignment: str, constrained: bool) -> bool:
    """Tell whether the scheduler picks the job's devices; otherwise canhazgpu does.

    Raises `ConfigError` if canhazgpu is to pick them, but the job could not open its picks.
    """
    if assignment == "canhazgpu" and constrained:
        raise ConfigError(
            'slurm.assignment = "canhazgpu" cannot work where cgroup.conf has ConstrainDevices=yes:'
            ' the job could not open the GPUs it is given; set it to "slurm" or "auto"'
        )
    return assignment == "slurm" or constrained


class JobAllocation:
    """The allocation of one job at its start.

    `scheduler_picks` is True if the scheduler picks the devices, False if canhazgpu does. A job
    with a share has the devices on which the scheduler counted it.
    """

    def __init__(
        self, hook: JobHook, ledger: Ledger, allocator: GpuAllocator, *, scheduler_picks: bool
    ) -> None:
        self.hook = hook
        self.ledger = ledger
        self.allocator = allocator
        self.scheduler_picks = scheduler_picks or hook.job.share is not None
        self.claim = claim_of(hook.job, names.SCHEDULER_TYPE, hook.boot_id)
        self.choice = InterchangeableChoice(hook.job.positions, hook.node_conf, hook.state_dir)
        self.needs_cuda_index = (
            hook.config.slurm.export == "index" and not hook.node_conf.constrains_devices
        )

    @property
    def count(self) -> int:
        """How many GPUs the job asked for on this node."""
        return len(self.hook.job.positions)

    def attempt(
        self, first_scan: PendingScan | None = None, *, force: bool = False
    ) -> AllocationResult:
        """Try once to reserve the job's GPUs; with `force` also GPUs in unreserved use.

        Also refused if the driver does not show a GPU that the scheduler assigned.
        """
        try:
            if not self.scheduler_picks:
                return self.allocator.reserve_count(
                    self.claim, self.count, first_scan, force=force, choice=self._count_choice()
                )
            return self.allocator.reserve_given(
                self.claim, self.assigned_uuids, first_scan, force=force
            )
        except InputError as exc:
            return Refusal(str(exc), kind=RefusalKind.NEVER)

    def candidates(self, gpus: Sequence[GpuReading]) -> frozenset[str] | None:
        """Return the GPUs as good as the scheduler's, None for all; raises `InputError`."""
        return self._count_choice().candidates(gpus)

    def _count_choice(self) -> GpuChoice:
        if self.needs_cuda_index:
            return NumberedByCuda(self.choice, self.count, EXPORT_KEY)
        return self.choice

    def attempt_gpus(self, gpus: Sequence[str], *, force: bool = False) -> AllocationResult:
        """Try once to reserve these GPUs (UUIDs)."""
        return self.allocator.reserve_given(self.claim, lambda _: gpus, force=force)

    def assigned_uuids(self, gpus: Sequence[GpuReading]) -> list[str]:
        """Return the UUIDs of the GPUs that the scheduler assigned; raises `InputError`."""
        assigned = [gpu.uuid for gpu in self.assigned_gpus(gpus)]
        if self.needs_cuda_index:
            refuse_unnumbered(gpus, assigned, EXPORT_KEY)
        return assigned

    def assigned_gpus(self, gpus: Sequence[GpuReading]) -> tuple[AssignedGpu, ...]:
        """Return the GPUs that the scheduler assigned; raises `InputError`."""
        devices = slurms_devices(self.hook.state_dir, self.hook.node_conf, gpus)
        return gpus_at_positions(self.hook.job.positions, devices, gpus)

    def accept(self, grant: Grant, *, swapped: bool = False) -> None:
        """Record the granted GPUs as the job's; `swapped` if they replace the scheduler's."""
        if self.scheduler_picks and not swapped:
            self.record_gpus(self.assigned_gpus(grant.node_gpus), grant.node_gpus)
        else:
            schedulers_gpus = self._schedulers_gpus(grant.node_gpus)
            self.record_gpus(self._number_gpus(grant), grant.node_gpus, schedulers_gpus)
        self._log_missing_gpus(grant.node_gpus)

    def record_gpus(
        self,
        gpus: Sequence[AssignedGpu],
        node_gpus: Sequence[GpuReading],
        schedulers_gpus: Sequence[AssignedGpu] | None = (),
    ) -> None:
        """Record the job's GPUs for the epilog and the task prolog.

        `node_gpus` are all GPUs of the node, `schedulers_gpus` those that the job's replace, None
        where these are not known.
        """
        constrained = self.hook.node_conf.constrains_devices
        export = task_export(
            self.hook.config.slurm,
            gpus,
            schedulers_gpus,
            constrained=constrained,
            opens_others=constrained and self._opens_others(node_gpus),
        )
        self.hook.records.complete(
            self.hook.job.owner,
            gpus,
            constrained=constrained,
            export=export,
            share=self.claim.share,
        )

    def _opens_others(self, gpus: Sequence[GpuReading]) -> bool:
        """Tell whether a job may open GPUs that Slurm does not count: it denies only those."""
        try:
            devices = slurms_devices(self.hook.state_dir, self.hook.node_conf, gpus)
            return has_unlisted_gpus(devices, gpus)
        except InputError:
            return True

    def _schedulers_gpus(self, gpus: Sequence[GpuReading]) -> tuple[AssignedGpu, ...] | None:
        """Return the GPUs that the scheduler's numbers mean, None where that is not known."""
        try:
            return self.assigned_gpus(gpus)
        except InputError:
            return None

    def _number_gpus(self, grant: Grant) -> tuple[AssignedGpu, ...]:
        """Return the GPUs that canhazgpu picked, with the job's numbers in the order of indices.

        A job with GPUs of several kinds has those at its positions, and each keeps its number.
        """
        if self.choice.is_exact(grant.node_gpus):
            return self.assigned_gpus(grant.node_gpus)
        chosen = sorted(grant.gpus, key=lambda gpu: (gpu.index, gpu.mig_index or 0))
        return tuple(
            AssignedGpu(position, gpu.uuid, gpu.index, cuda_index=gpu.cuda_index)
            for position, gpu in zip(sorted(self.hook.job.positions), chosen, strict=True)
        )

    def _log_missing_gpus(self, gpus: Sequence[GpuReading]) -> None:
        """Log that the node lacks GPUs; a job that has its own GPUs starts all the same.

        The configuration counts MIG instances as the GPU that they divide, Slurm each by itself.
        """
        if expected := self.hook.config.validation.expected_gpus:
            missing = missing_gpus_text(expected, count_whole_gpus(gpus))
        else:
            missing = self._missing_by_slurm(gpus)
        if missing:
            self.hook.actions.log(f"{self.hook.job.node}: {missing}: see 'nvidia-smi -L'")

    def _missing_by_slurm(self, gpus: Sequence[GpuReading]) -> str:
        try:
            counted, devices = self.hook.node_conf.gpu_count, self.hook.node_conf.gpu_devices
        except InputError:
            return ""
        return missing_gpus_text(counted or 0, count_present(devices, gpus))


AllocationResult = Grant | Refusal
