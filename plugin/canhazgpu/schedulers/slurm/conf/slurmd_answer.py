"""What slurmd answers about a node's GPUs, and what follows from it and from the files; pure."""

from __future__ import annotations

from collections.abc import Sequence

from canhazgpu.errors import InputError
from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.gpu.scan import GpuReading
from canhazgpu.schedulers.slurm.conf.detected_order import detected_order
from canhazgpu.schedulers.slurm.conf.gpu_device import GpuDevice
from canhazgpu.schedulers.slurm.conf.node_conf import SlurmNodeConf

ASK_AGAIN = "run canhazgpu-healthcheck on this node, and see 'canhazgpu hooks check'"


@dataclass(frozen=True, slots=True)
class SlurmdAnswer:
    """What slurmd said of the node's GPUs: `devices` in its order, or why it said nothing.

    `conf` has the stamps of Slurm's files, and `driver` the GPUs that the driver showed then.
    `slurmd` identifies the slurmd that ran, empty if it was not seen; then the answer may differ
    from what that slurmd detected, since its library path is not known. `asked_at` is Unix time.
    """

    conf: dict[str, list[int]]
    driver: list[list[str | int | None]]
    boot_id: str | None
    slurmd: str
    asked_at: float
    devices: tuple[GpuDevice, ...]
    fault: str = ""


def conf_stamps(node_conf: SlurmNodeConf) -> dict[str, list[int]]:
    """Return the stamps of Slurm's files and the node's name, as the record has them."""
    stamps = {
        path: [one.modified_ns, one.size, one.inode] for path, one in node_conf.stamps.items()
    }
    return {**stamps, f"NodeName={node_conf.node}": []}


def driver_gpus(gpus: Sequence[GpuReading]) -> list[list[str | int | None]]:
    """Return the driver's GPUs as the record has them: what a number of Slurm depends on."""
    return [[gpu.uuid, gpu.device_number] for gpu in gpus]


def agreed_devices(
    node_conf: SlurmNodeConf, gpus: Sequence[GpuReading], answer: SlurmdAnswer | None
) -> tuple[GpuDevice, ...]:
    """Return the node's GPUs in the order of Slurm's numbers, as far as that can be known.

    `answer` is slurmd's last one; it counts while Slurm's files are as they were, and where GPUs
    are detected, while the driver shows the same. Raises `InputError` where the files cannot be
    read, where slurmd reads them in another way, and where slurmd alone knows what it detected.
    """
    listed, autodetect = node_conf.gpu_devices, node_conf.gres_conf.autodetect
    if answer is not None and (answer.fault or answer.conf != conf_stamps(node_conf)):
        answer = None
    if not autodetect:
        return _agreed(node_conf, listed, answer)
    if answer is not None and not (answer.slurmd and answer.driver == driver_gpus(gpus)):
        answer = None
    ours = detected_order(autodetect, listed, node_conf.declared_gpus or (), gpus)
    if ours is not None:
        return _agreed(node_conf, ours, answer)
    if answer is not None and len(answer.devices) >= (node_conf.gpu_count or 0):
        return answer.devices
    raise InputError(
        f"gres.conf has AutoDetect={autodetect} for {node_conf.node}, the driver shows {len(gpus)}"
        f" GPUs where Slurm counts {node_conf.gpu_count or len(listed)}, and no answer of slurmd"
        f" for these is on record, so Slurm's numbers cannot be told apart: {ASK_AGAIN}; or set"
        " AutoDetect=off and name all files with File="
    )


def _agreed(
    node_conf: SlurmNodeConf, ours: tuple[GpuDevice, ...], answer: SlurmdAnswer | None
) -> tuple[GpuDevice, ...]:
    if answer is None or [one.files for one in answer.devices] == [one.files for one in ours]:
        return ours
    if _files(answer.devices) == _files(ours):
        raise InputError(
            f"slurmd counts each file of MultipleFiles= for {node_conf.node} as a GPU, as 22.05"
            " does where GresTypes= has shard or mps, and gives jobs wrong GPUs or none: name the"
            " compute instance alone, with File=/dev/nvidia-caps/nvidia-capN, or take shard and"
            " mps out of GresTypes="
        )
    raise InputError(
        f"slurmd -G and canhazgpu read the GPUs of {node_conf.node} in different ways: slurmd has"
        f" {_described(answer.devices)}, canhazgpu {_described(ours)}; write gres.conf in a simpler"
        " way, and please report this"
    )


def _files(devices: Sequence[GpuDevice]) -> list[str]:
    return [file for one in devices for file in one.files]


def _described(devices: Sequence[GpuDevice]) -> str:
    return ", ".join("+".join(one.files) for one in devices[:64])[:200] or "none"
