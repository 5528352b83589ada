"""A scan of a node's GPUs, as values; pure. `scan_json` writes and reads it."""

from __future__ import annotations

import re
from collections.abc import Iterable

from canhazgpu.frozen_dataclass import dataclass

_MIG_PROFILE = re.compile(r"\bMIG (\d\S*)$", re.ASCII)


@dataclass(frozen=True, slots=True)
class GpuProcess:
    """A process on a GPU; a field that could not be read is None.

    `model` is the model that its command line or a parent's names. `job` is the scheduler's job in
    whose cgroup it runs, ``slurm:123``; see `canhazgpu.gpu.process_job`.
    `ancestors` are the pids of its parents, the nearest first. `is_mps_server` says that it runs
    NVIDIA's MPS server, by the program's file, which is root's.
    """

    pid: int
    uid: int | None
    user: str | None
    name: str | None
    memory_mb: int | None
    model: str | None = None
    job: str | None = None
    ancestors: tuple[int, ...] = ()
    is_mps_server: bool = False


def known_memory_mb(processes: Iterable[GpuProcess]) -> int:
    """Return the sum of the amounts that are known, in MB."""
    return sum(one.memory_mb or 0 for one in processes)


@dataclass(frozen=True, slots=True)
class GpuHealth:
    """The health that a GPU reports, cheap fields only; None for what it does not report.

    `recovery_action` is ``none``, ``reset``, ``reboot``, ``drain`` or ``drain and reset``;
    `compute_mode` is ``default``, ``exclusive thread``, ``prohibited`` or ``exclusive process``.
    `ecc_uncorrected` counts uncorrected memory errors since the driver was loaded.
    """

    recovery_action: str | None = None
    remap_pending: bool | None = None
    remap_failed: bool | None = None
    retirement_pending: bool | None = None
    ecc_uncorrected: int | None = None
    compute_mode: str | None = None


@dataclass(frozen=True, slots=True)
class MigDeviceNumbers:
    """The numbers of the device files by which a MIG instance is opened; None for one not known.

    `gpu` is the N of its GPU's ``/dev/nvidiaN``. The others are those of
    ``/dev/nvidia-caps/nvidia-capN``: for its GPU instance, which may hold several compute
    instances, and for its compute instance, which is what CUDA calls a MIG instance.
    """

    gpu: int | None = None
    gpu_instance: int | None = None
    compute_instance: int | None = None


@dataclass(frozen=True, slots=True)
class GpuReading:
    """One GPU at the time of a scan.

    `fault` says why the GPU could not be read; a GPU with a fault is in an unknown state, never
    available. `memory_used_mb` without a fault is None for a GPU without memory of its own (unified
    memory): its processes then decide. `uuid` is empty only for a GPU
    that could not be identified. A MIG instance is a GPU of its own: `index` and `parent_uuid` are
    then those of its GPU, and `mig_index` is its index on that GPU. It has no `device_number` of
    its own, but `mig_devices`. `cuda_index` is CUDA's index where it counts in the order of PCI
    addresses (``CUDA_DEVICE_ORDER=PCI_BUS_ID``), None where it is not certain.
    `utilization_percent` is the share of the driver's last sample period, a second or less, in
    which the GPU computed; None where the driver does not report it, as under MIG.
    """

    index: int
    uuid: str
    device_number: int | None
    name: str
    memory_used_mb: int | None
    memory_total_mb: int | None
    processes: tuple[GpuProcess, ...] = ()
    fault: str | None = None
    health: GpuHealth | None = None
    mig_index: int | None = None
    parent_uuid: str | None = None
    mig_devices: MigDeviceNumbers | None = None
    cuda_index: int | None = None
    utilization_percent: int | None = None

    @property
    def is_mig_instance(self) -> bool:
        """Whether this is a MIG instance, and not a whole GPU."""
        return self.mig_index is not None

    @property
    def mig_profile(self) -> str:
        """The profile of a MIG instance, ``1g.10gb``: the end of its name; empty without one."""
        found = _MIG_PROFILE.search(self.name) if self.is_mig_instance else None
        return found[1] if found else ""

    @property
    def held_memory_mb(self) -> int | None:
        """The memory in use, in MB: the GPU's own sum, or its processes' where that is larger.

        None where the GPU has no memory of its own and the amount of a process is unknown.
        """
        of_processes = known_memory_mb(self.processes)
        if self.memory_used_mb is not None:
            return max(self.memory_used_mb, of_processes)
        all_known = all(one.memory_mb is not None for one in self.processes)
        return of_processes if self.processes and all_known else None

    @property
    def display_index(self) -> str:
        """The index as people read it: ``3``, or ``3:1`` for a MIG instance."""
        return str(self.index) if self.mig_index is None else f"{self.index}:{self.mig_index}"


@dataclass(frozen=True, slots=True)
class Scan:
    """One reading of all GPUs of a node; `started_at` and `took_s` are seconds of the node's clock.

    `fault` says why no GPU could be read. `source` is what read them, ``nvml`` or ``nvidia-smi``.
    """

    node: str
    started_at: float
    took_s: float
    gpus: tuple[GpuReading, ...]
    fault: str | None = None
    source: str = "nvml"

    def by_uuid(self) -> dict[str, GpuReading]:
        """Return the identified GPUs by UUID."""
        return {gpu.uuid: gpu for gpu in self.gpus if gpu.uuid}


def whole_gpus(scan: Scan) -> dict[str, int]:
    """Return the index of each identified GPU by UUID; MIG instances stand for their GPU."""
    found = ((gpu.parent_uuid or gpu.uuid, gpu.index) for gpu in scan.gpus)
    return {uuid: index for uuid, index in found if uuid}


def missing_gpu_reading(uuid: str, fault: str = "the driver no longer shows it") -> GpuReading:
    """Return a reading without index for a GPU that the scan does not show."""
    return GpuReading(-1, uuid, None, "", None, None, fault=fault)
