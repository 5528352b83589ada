"""The sources that can read the GPUs of this node, in the order of their use."""

from __future__ import annotations

import os

from canhazgpu.config.schema import ValidationConfig
from canhazgpu.errors import ScanError
from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.gpu.scan import GpuReading
from canhazgpu.probe import fault_messages
from canhazgpu.probe.processes.cgroup_job import JobOfCgroup

NVML = "nvml"
NVIDIA_SMI = "nvidia-smi"
MAX_DETAILS_WAIT_S = 1.0
DETAILS_TIME_SHARE = 0.2
"""Share of a scan's time that may be spent on the details of processes."""
NVIDIA_SMI_PATHS = (
    "/usr/bin/nvidia-smi",
    "/usr/local/bin/nvidia-smi",
    "/usr/local/nvidia/bin/nvidia-smi",
    "/usr/lib/wsl/lib/nvidia-smi",
)


@dataclass(frozen=True, slots=True)
class GpuSource:
    """One way to read the GPUs: `NVML` by a library, or `NVIDIA_SMI` by a program.

    `path` is the absolute path of the library, empty for the dynamic loader's, or of the program,
    empty where the node has none. `details_wait_s` is the longest wait for details of processes.
    """

    name: str
    path: str
    details_wait_s: float
    job_of: JobOfCgroup

    def read(self) -> tuple[GpuReading, ...]:
        """Read all GPUs; it may hang. Raises `ScanError` where the source does not work."""
        read = _read_by_nvml if self.name == NVML else _read_by_nvidia_smi
        return _with_details(read(self.path), self.job_of, self.details_wait_s)


def configured_sources(validation: ValidationConfig, job_of: JobOfCgroup) -> list[GpuSource]:
    """Return the sources that ``validation.probe`` names.

    ``auto`` is NVML, and nvidia-smi after it where the node has that program.
    """
    program = validation.nvidia_smi or _find_nvidia_smi()
    wait_s = min(MAX_DETAILS_WAIT_S, validation.scan_timeout_s * DETAILS_TIME_SHARE)
    nvml = GpuSource(NVML, validation.nvml_library, wait_s, job_of)
    smi = GpuSource(NVIDIA_SMI, program, wait_s, job_of)
    if validation.probe == NVML:
        return [nvml]
    if validation.probe == NVIDIA_SMI:
        return [smi]
    return [nvml, smi] if program else [nvml]


def _with_details(
    gpus: tuple[GpuReading, ...], job_of: JobOfCgroup, wait_s: float
) -> tuple[GpuReading, ...]:
    # Detecting models takes 15 ms to import: only where there is a process, and in the child.
    if not any(gpu.processes for gpu in gpus):
        return gpus
    from canhazgpu.probe.processes.describe import with_process_details  # noqa: PLC0415

    return with_process_details(gpus, job_of, wait_s)


def _find_nvidia_smi() -> str:
    """Return the path of nvidia-smi, empty where it is in none of the usual places.

    PATH is not used: hooks have none, and a user's PATH may name any program.
    """
    return next((path for path in NVIDIA_SMI_PATHS if os.access(path, os.X_OK)), "")


def _read_by_nvml(library: str) -> tuple[GpuReading, ...]:
    # Only the child that scans imports pynvml; meanwhile its parent imports the client of Redis.
    from canhazgpu.probe.nvml.reader import read_gpus  # noqa: PLC0415

    return read_gpus(library)


def _read_by_nvidia_smi(program: str) -> tuple[GpuReading, ...]:
    from canhazgpu.probe.nvidia_smi.reader import read_gpus  # noqa: PLC0415 - as above

    if not program:
        raise ScanError(fault_messages.NO_NVIDIA_SMI)
    return read_gpus(program)
