"""Pure: map Slurm's numbers of a job's GPUs to the GPUs of NVML.

Slurm's number is the position of the device file in ``gres.conf``. The number in the file's name is
NVML's minor number, which identifies the UUID. If ``gres.conf`` names no files (AutoDetect),
Slurm counts in the order of the device numbers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from canhazgpu.errors import InputError
from canhazgpu.gpu.assigned import AssignedGpu
from canhazgpu.gpu.scan import GpuReading
from canhazgpu.schedulers.slurm.conf.gpu_device import GpuDevice

_GPU_FILE = re.compile(r"(?:[^,]*/)?nvidia(\d{1,6})", re.ASCII)


def gpus_at_positions(
    positions: Sequence[int],
    devices: Sequence[GpuDevice] | None,
    gpus: Sequence[GpuReading],
    declared: int | None = None,
) -> tuple[AssignedGpu, ...]:
    """Return the GPU at each position, in the same order.

    `declared` is how many GPUs ``slurm.conf`` gives the node, None if that is not known.
    Raises `InputError` for a position without a device file, and for a device file whose GPU the
    driver does not show.
    """
    by_number = {gpu.device_number: gpu for gpu in gpus if gpu.device_number is not None}
    if not devices and (len(by_number) < len(gpus) or declared not in (None, len(gpus))):
        # Counting across a missing GPU would give the wrong one.
        raise InputError(
            f"the driver shows {len(by_number)} of this node's {declared or len(gpus)} GPUs and"
            " gres.conf names no File=, so Slurm's numbers cannot be told apart: see"
            " 'nvidia-smi -L', or name the files"
        )
    known = devices or [GpuDevice("", (f"/dev/nvidia{number}",)) for number in sorted(by_number)]
    assigned = []
    for position in positions:
        if position >= len(known):
            raise InputError(
                f"Slurm gave GPU {position}, but gres.conf and the driver know {len(known)} GPUs"
                " on this node: compare gres.conf with 'nvidia-smi -L'"
            )
        file = ",".join(known[position].files)
        number = _device_number(file)
        gpu = None if number is None else by_number.get(number)
        if gpu is None or not gpu.uuid:
            raise InputError(
                f"Slurm gave GPU {position} ({file}), which the driver does not show:"
                " compare gres.conf with 'nvidia-smi -L'"
            )
        assigned.append(AssignedGpu(position, gpu.uuid, gpu.index, file))
    return tuple(assigned)


def _device_number(file: str) -> int | None:
    match = _GPU_FILE.fullmatch(file)
    return int(match[1]) if match else None
