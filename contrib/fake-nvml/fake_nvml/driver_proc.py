"""What the driver has below /proc/driver, written into another directory."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from fake_nvml.devices import FakeGpu

FIRST_MIG_MINOR = 3
"""The N of nvidia-capN for GPU instance 0 of GPU 0; 1 and 2 are not instances'."""
GPU_INSTANCES, COMPUTE_INSTANCES = 15, 8
"""How many of each the driver has device files for: of a GPU, and of a GPU instance."""


def write_driver_proc(gpus: Sequence[FakeGpu], directory: Path) -> Path:
    """Write what the driver has as /proc/driver/nvidia/gpus into a directory, for all GPUs."""
    for index, gpu in enumerate(gpus):
        bus_id = gpu.text("pci_bus_id", f"00000000:{0x10 + gpu.index:02X}:00.0")
        number = gpu.text("minor", index)
        domain, _, rest = bus_id.lower().partition(":")
        one = directory / f"{domain[-4:]}:{rest}"
        one.mkdir(parents=True, exist_ok=True)
        text = f"GPU UUID: \t {gpu.uuid}\nDevice Minor: \t {number}\n"
        (one / "information").write_text(text)
    return directory


def write_mig_proc(gpus: Sequence[FakeGpu], directory: Path) -> Path:
    """Write what the driver has below /proc/driver for MIG: ``mig-minors``, ``capabilities``.

    What an earlier call wrote there is replaced: instances come and go.
    """
    table = ["config 1", "monitor 2"]
    for minor in sorted(map(_minor, gpus)):
        table += [
            f"gpu{minor}/{name}/access {number}"
            for gi in range(GPU_INSTANCES)
            for name, number in _capabilities(minor, gi).items()
        ]
    caps, shown = directory / "nvidia-caps", directory / "nvidia" / "capabilities"
    caps.mkdir(parents=True, exist_ok=True)
    (caps / "mig-minors").write_text("\n".join(table) + "\n")
    shutil.rmtree(shown, ignore_errors=True)
    shown.mkdir(parents=True)
    for gpu in gpus:
        for mig in gpu.migs:
            mig_directory = shown / f"gpu{_minor(gpu)}" / "mig"
            gi, ci = (int(mig.text(f"{kind}_instance_id", 0)) for kind in ("gpu", "compute"))
            capabilities = _capabilities(_minor(gpu), gi)
            for name in (f"gi{gi}", f"gi{gi}/ci{ci}"):
                access = mig_directory / name / "access"
                access.parent.mkdir(parents=True, exist_ok=True)
                access.write_text(
                    f"DeviceFileMinor: {capabilities[name]}\nDeviceFileMode: 438\n"
                    "DeviceFileModify: 1\n"
                )
    return directory


def _minor(gpu: FakeGpu) -> int:
    return int(gpu.text("minor", gpu.index))


def _capabilities(gpu: int, gpu_instance: int) -> dict[str, int]:
    """The capabilities of a GPU instance and of its compute instances, with their minor numbers."""
    per_gpu = GPU_INSTANCES * (1 + COMPUTE_INSTANCES)
    first = FIRST_MIG_MINOR + gpu * per_gpu + gpu_instance * (1 + COMPUTE_INSTANCES)
    own = {f"gi{gpu_instance}": first}
    return own | {f"gi{gpu_instance}/ci{ci}": first + 1 + ci for ci in range(COMPUTE_INSTANCES)}
