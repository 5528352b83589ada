"""Pure: the GPUs of a node in ``gres.conf`` and in ``Gres=`` of ``slurm.conf``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from canhazgpu.errors import InputError
from canhazgpu.schedulers.slurm.conf.gpu_device import GpuDevice
from canhazgpu.schedulers.slurm.conf.hostlist import expand_hostlist
from canhazgpu.schedulers.slurm.conf.parser import ConfPairs

# gpu, gpu:4, gpu:a100:4, each possibly followed by (S:0-1) or (IDX…)
_GRES = re.compile(r"gpu(?::(?!\d+(?:\(|$))([^:,()]+))?(?::(\d{1,4}))?(?:\(.*)?")


@dataclass(frozen=True, slots=True)
class DeclaredGpus:
    """The number of a node's GPUs of one type; the type is empty if ``Gres=`` names none."""

    kind: str
    count: int


def parse_declared_gpus(nodes: Iterable[ConfPairs], node: str) -> tuple[DeclaredGpus, ...]:
    """Return the GPUs in ``Gres=`` of the node's line in ``slurm.conf``, in that order."""
    gres = ""
    default = ""
    for line in nodes:
        if line["nodename"].upper() == "DEFAULT":
            default = line.get("gres", default)
        elif node in expand_hostlist(line["nodename"]):
            gres = line.get("gres", default)
    found = (_GRES.fullmatch(part) for part in gres.split(","))
    return tuple(DeclaredGpus(one[1] or "", int(one[2] or 1)) for one in found if one)


def order_gpu_devices(
    lines: Iterable[ConfPairs], node: str, declared: Sequence[DeclaredGpus] = ()
) -> tuple[GpuDevice, ...] | None:
    """Return the node's GPUs in Slurm's order, None if ``gres.conf`` names no device files.

    Slurm's number of a GPU is its index in this list (measured on 22.05). GPUs without a type are
    in the order of ``gres.conf``; typed GPUs are grouped by type, in the order of ``Gres=`` in
    ``slurm.conf``. Raises `InputError` if the two files disagree.
    """
    named = _named_devices(lines, node)
    devices = named
    if len({one.kind for one in named}) > 1:
        devices = [
            device
            for one in declared
            for device in [device for device in named if device.kind == one.kind][: one.count]
        ]
    count = sum(one.count for one in declared)
    if named and declared and not len(devices) == len(named) == count:
        raise InputError(
            f"gres.conf names {len(named)} GPU files for {node}, and Gres= in slurm.conf"
            f" {count} GPUs: make the files and the types agree"
        )
    return tuple(devices) or None


def _named_devices(lines: Iterable[ConfPairs], node: str) -> list[GpuDevice]:
    devices: list[GpuDevice] = []
    for line in lines:
        if line.get("name", "").lower() != "gpu":
            continue
        if "nodename" in line and node not in expand_hostlist(line["nodename"]):
            continue
        kind = line.get("type", "")
        if "multiplefiles" in line:
            devices.append(GpuDevice(kind, expand_hostlist(line["multiplefiles"])))
        elif "file" in line:
            devices.extend(GpuDevice(kind, (file,)) for file in expand_hostlist(line["file"]))
    return devices
