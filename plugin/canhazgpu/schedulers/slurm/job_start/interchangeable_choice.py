"""The choice of a job whose GPUs canhazgpu picks: GPUs of the kind that Slurm counted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from canhazgpu.errors import InputError
from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.gpu.scan import GpuReading
from canhazgpu.schedulers.slurm.conf.gpu_device import GpuDevice
from canhazgpu.schedulers.slurm.conf.interchangeable import (
    are_of_several_kinds,
    interchangeable_gpus,
)
from canhazgpu.schedulers.slurm.conf.node_conf import SlurmNodeConf
from canhazgpu.schedulers.slurm.hook.slurmd_gpus_record import slurms_devices


@dataclass(frozen=True, slots=True)
class InterchangeableChoice:
    """A `GpuChoice`: the GPUs of the kind of those at Slurm's `positions`."""

    positions: Sequence[int]
    node_conf: SlurmNodeConf
    state_dir: Path

    def candidates(self, gpus: Sequence[GpuReading]) -> frozenset[str] | None:
        """See `GpuChoice.candidates`."""
        devices = self._devices(gpus)
        return interchangeable_gpus(self.positions, devices, gpus)

    def is_exact(self, gpus: Sequence[GpuReading]) -> bool:
        """Tell whether the candidates are the GPUs at the positions: those of several kinds."""
        return are_of_several_kinds(self.positions, self._devices(gpus))

    def shortage_text(self, requested: int, gpus: Sequence[GpuReading], node: str) -> str:
        """See `GpuChoice.shortage_text`."""
        found = self.candidates(gpus)
        present = len(gpus) if found is None else len(found)
        kind = "" if found is None else " of the job's kind"
        return f"{node} has {present} GPUs{kind}; {requested} were asked for"

    def _devices(self, gpus: Sequence[GpuReading]) -> tuple[GpuDevice, ...]:
        """Return Slurm's devices; none where they cannot be read and all GPUs are of one kind."""
        try:
            return slurms_devices(self.state_dir, self.node_conf, gpus)
        except InputError:
            if self.node_conf.has_several_gpu_types or any(gpu.is_mig_instance for gpu in gpus):
                raise
            return ()
