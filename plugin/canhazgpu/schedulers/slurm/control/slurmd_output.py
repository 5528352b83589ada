"""The GPUs in the output of ``slurmd -G``, the version in that of ``slurmd -V``; pure."""

from __future__ import annotations

import re

from canhazgpu.errors import InputError
from canhazgpu.schedulers.slurm.conf.gpu_device import GpuDevice
from canhazgpu.schedulers.slurm.conf.hostlist import expand_hostlist

_RECORD = re.compile(
    r"Gres Name=(?i:gpu) Type=(?P<kind>.*?) Count=(?P<count>\d+)(?: Index=\d+)? ID=\d+"
    r" File=(?P<files>[ \t]*\S+(?:[ \t]+/\S+)*)"
)
_VERSION = re.compile(r"(\d+)\.(\d+)")


def parse_slurmd_gpus(text: str) -> tuple[GpuDevice, ...]:
    """Return the GPUs in Slurm's order; raises `InputError` for files unlike the count of GPUs.

    A record of one GPU with several files is a MIG instance; otherwise each file is a GPU.
    """
    devices: list[GpuDevice] = []
    for found in _RECORD.finditer(text):
        kind = "" if found["kind"] == "(null)" else found["kind"]
        files = expand_hostlist(found["files"])
        if found["count"] == "1":
            devices.append(GpuDevice(kind, files))
        elif int(found["count"]) != len(files):
            raise InputError(f"{found['count']} GPUs with the files {found['files'][:80]}")
        else:
            devices.extend(GpuDevice(kind, (file,)) for file in files)
    return tuple(devices)


def parse_slurm_version(text: str) -> tuple[int, int] | None:
    """Return the release, such as (24, 11), None if the text has none."""
    found = _VERSION.search(text)
    return (int(found[1]), int(found[2])) if found else None
