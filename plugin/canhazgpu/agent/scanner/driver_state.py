"""What tells that an initialised driver is no longer the one that it was.

NVML counts the GPUs when it is initialised, and keeps the library that it was loaded from. What
the kernel module shows below ``/proc/driver/nvidia``, the module's version and the library's file
cost a few system calls, and are compared at each scan.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.gpu.scan import Scan
from canhazgpu.probe import fault_messages

DRIVER_PROC = "/proc/driver/nvidia"
"""``gpus/`` has a directory for each GPU, ``capabilities/gpuN/mig/giN/ciN`` for each instance."""
MODULE_VERSION = "/sys/module/nvidia/version"
LIBRARY_NAME = "/libnvidia-ml.so"
FileIdentity = tuple[int, int, int] | None


@dataclass(frozen=True, slots=True)
class DriverState:
    """The GPUs and instances that the kernel module shows, its version, and the library's files."""

    gpus: tuple[str, ...]
    instances: tuple[str, ...]
    version: str
    libraries: tuple[FileIdentity, ...]


def read_driver_state(*libraries: str) -> DriverState:
    """Return the state; what cannot be read is empty, as on a node without that driver.

    `libraries` are the paths of the library: the loaded file, and the link by which it was found.
    """
    return DriverState(
        tuple(_names(f"{DRIVER_PROC}/gpus")),
        tuple(_instances(f"{DRIVER_PROC}/capabilities")),
        _text(MODULE_VERSION),
        tuple(_identity(path) for path in libraries),
    )


def loaded_library() -> str:
    """Return the path of the NVML library that this process has loaded, empty for none."""
    for line in _text("/proc/self/maps").splitlines():
        path = line[line.find("/") :]
        if LIBRARY_NAME in path:
            return path
    return ""


def is_sound(scan: Scan) -> bool:
    """Tell whether the driver read everything; MIG mode without instances is no fault of it."""
    return scan.fault is None and all(
        gpu.fault in (None, fault_messages.MIG_WITHOUT_INSTANCES) for gpu in scan.gpus
    )


def gpu_identities(scan: Scan) -> tuple[tuple[int, int | None, str], ...]:
    """Return which GPUs and instances a scan found."""
    return tuple((gpu.index, gpu.mig_index, gpu.uuid) for gpu in scan.gpus)


def _instances(capabilities: str) -> Iterator[str]:
    for gpu in _names(capabilities):
        for gpu_instance in _names(f"{capabilities}/{gpu}/mig"):
            for one in _names(f"{capabilities}/{gpu}/mig/{gpu_instance}"):
                yield f"{gpu}/{gpu_instance}/{one}"


def _names(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))  # noqa: PTH208 - a path for each would cost time
    except OSError:
        return []


def _identity(path: str) -> FileIdentity:
    try:
        found = os.stat(path)  # noqa: PTH116 - as above
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:  # noqa: PTH123 - as above
            return stream.read()
    except OSError:
        return ""
