"""Which index CUDA gives each GPU where ``CUDA_DEVICE_ORDER=PCI_BUS_ID``; pure.

CUDA counts the GPUs that it can use in the order of their PCI addresses; NVML's indices count lost
GPUs too, and NVML promises no order. (CUDA C++ Programming Guide, "CUDA Environment Variables";
nvmlDeviceGetHandleByIndex: "may not correlate with other APIs, such as the CUDA device ordinal".)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace

from canhazgpu.gpu.scan import GpuReading
from canhazgpu.probe.fault_messages import is_lost_fault

PciAddress = tuple[int, ...]
"""Domain, bus, device and function."""

_ADDRESS = re.compile(r"([0-9a-f]{1,8}):([0-9a-f]{1,2}):([0-9a-f]{1,2})(?:\.([0-9a-f]))?", re.I)


def parse_pci_address(text: str) -> PciAddress | None:
    """Return the address of a text such as ``00000000:3B:00.0``, None for any other text."""
    found = _ADDRESS.fullmatch(text.strip())
    return tuple(int(part or "0", 16) for part in found.groups()) if found else None


def with_cuda_indices(
    readings: Iterable[GpuReading], addresses: Mapping[int, PciAddress | None]
) -> tuple[GpuReading, ...]:
    """Return the readings with CUDA's index of each GPU for which it is certain.

    `addresses` are those of the GPUs by NVML's index. CUDA does not count a lost GPU. Whether it
    counts one with another fault is not known, nor how it counts beside a GPU in MIG mode.
    """
    found = tuple(readings)
    counted = [gpu for gpu in found if not is_lost_fault(gpu.fault)]
    known = {gpu.index: addresses.get(gpu.index) for gpu in counted}
    if None in known.values() or any(gpu.mig_index is not None for gpu in found):
        return found
    indices: dict[int, int] = {}
    for gpu in sorted(counted, key=lambda one: known[one.index] or ()):
        if gpu.fault is not None:
            break
        indices[gpu.index] = len(indices)
    return tuple(replace(gpu, cuda_index=indices.get(gpu.index)) for gpu in found)
