"""The device files of MIG instances, as the driver shows them below ``/proc/driver``.

``nvidia-caps/mig-minors`` lists the numbers for all instances that there could be, in lines such
as ``gpu0/gi1/access 12`` and ``gpu0/gi1/ci0/access 13``. For an instance that there is,
``nvidia/capabilities/gpu0/mig/gi1/ci0/access`` has ``DeviceFileMinor: 13``. The N of ``gpuN`` is
that of ``/dev/nvidiaN``. (NVIDIA's MIG user guide, "Device Nodes and Capabilities".)
"""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path
from typing import Any

import pynvml

from canhazgpu.gpu.scan import MigDeviceNumbers
from canhazgpu.probe.nvml.calls import NVML_ERRORS

DRIVER_PROC = Path("/proc/driver")
_LISTED = re.compile(r"(gpu[0-9]+/gi[0-9]+(?:/ci[0-9]+)?)/access ([0-9]{1,7})")
_SHOWN = re.compile(r"^DeviceFileMinor:\s*([0-9]{1,7})$", re.MULTILINE)


class MigCapabilities:
    """The numbers of the capabilities' device files, by names such as ``gi1/ci0``."""

    def __init__(self, driver_proc: Path | None = None) -> None:
        self._driver_proc = driver_proc or DRIVER_PROC

    def number_of(self, gpu: int, instance: str) -> int | None:
        """Return the N of ``nvidia-capN``; None where it is not known.

        Where the driver's two files contradict each other, neither is believed.
        """
        listed = self._listed.get(f"gpu{gpu}/{instance}")
        directory = self._driver_proc / "nvidia" / "capabilities" / f"gpu{gpu}" / "mig" / instance
        found = _SHOWN.search(_read_text(directory / "access"))
        shown = int(found[1]) if found else listed
        return shown if listed in (None, shown) else None

    @cached_property
    def _listed(self) -> dict[str, int]:
        text = _read_text(self._driver_proc / "nvidia-caps" / "mig-minors")
        return {name: int(number) for name, number in _LISTED.findall(text)}


def read_mig_device_numbers(
    gpu: int | None, handle: Any, capabilities: MigCapabilities
) -> MigDeviceNumbers:
    """Return the numbers of an instance's device files, by its handle and its GPU's number.

    An error here says nothing of the use of the instance: the numbers are then not known.
    """
    if gpu is None:
        return MigDeviceNumbers()
    try:
        gpu_instance = f"gi{pynvml.nvmlDeviceGetGpuInstanceId(handle)}"
        compute_instance = f"{gpu_instance}/ci{pynvml.nvmlDeviceGetComputeInstanceId(handle)}"
    except NVML_ERRORS:
        return MigDeviceNumbers(gpu)
    return MigDeviceNumbers(
        gpu,
        capabilities.number_of(gpu, gpu_instance),
        capabilities.number_of(gpu, compute_instance),
    )


def _read_text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""
