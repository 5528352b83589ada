"""What can read the GPUs of this node, in the order in which it is asked."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from canhazgpu.config.schema import ValidationConfig
from canhazgpu.errors import ScanError
from canhazgpu.gpu.scan import GpuReading
from canhazgpu.probe import faults
from canhazgpu.probe.processes import DEFAULT_WAIT_S, JobOf, with_process_facts

NVML = "nvml"
NVIDIA_SMI = "nvidia-smi"
SHARE_OF_FACTS = 0.2
"""Of a scan's time, the most that is waited for what the node tells of the processes."""
USUAL_PLACES = (
    "/usr/bin/nvidia-smi",
    "/usr/local/bin/nvidia-smi",
    "/usr/local/nvidia/bin/nvidia-smi",
    "/usr/lib/wsl/lib/nvidia-smi",
)


@dataclass(frozen=True, slots=True)
class Source:
    """One way to read the GPUs; `read` may hang, and raises `ScanError` where it cannot be used."""

    name: str
    read: Callable[[], tuple[GpuReading, ...]]


def sources_of(validation: ValidationConfig, job_of: JobOf) -> list[Source]:
    """Return the sources that ``validation.probe`` names.

    ``auto`` is NVML, and nvidia-smi after it where the node has that program.
    """
    program = validation.nvidia_smi or _usual_nvidia_smi()
    wait_s = min(DEFAULT_WAIT_S, validation.scan_timeout_s * SHARE_OF_FACTS)
    nvml = Source(
        NVML, lambda: with_process_facts(_by_nvml(validation.nvml_library), job_of, wait_s)
    )
    smi = Source(NVIDIA_SMI, lambda: with_process_facts(_by_nvidia_smi(program), job_of, wait_s))
    if validation.probe == NVML:
        return [nvml]
    if validation.probe == NVIDIA_SMI:
        return [smi]
    return [nvml, smi] if program else [nvml]


def _usual_nvidia_smi() -> str:
    """Return the path of nvidia-smi, empty where it is in none of the usual places.

    Hooks have no PATH, and a user's may lead anywhere.
    """
    return next((path for path in USUAL_PLACES if os.access(path, os.X_OK)), "")


def _by_nvml(library: str) -> tuple[GpuReading, ...]:
    # Only the child that reads pays for importing pynvml, while its parent imports the store's
    # client.
    from canhazgpu.probe.nvml import read_gpus  # noqa: PLC0415

    return read_gpus(library)


def _by_nvidia_smi(program: str) -> tuple[GpuReading, ...]:
    from canhazgpu.probe.nvidia_smi import read_gpus  # noqa: PLC0415 - as above

    if not program:
        raise ScanError(faults.NO_PROGRAM)
    return read_gpus(program)
