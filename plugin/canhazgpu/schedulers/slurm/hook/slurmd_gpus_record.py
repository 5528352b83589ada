"""The node's record of slurmd's own answer, ``<state_dir>/slurmd-gpus.json``.

The health check asks slurmd; a job's hook only reads the record.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from canhazgpu.gpu.scan import GpuReading
from canhazgpu.node.state_files import read_if_owned, write_atomically
from canhazgpu.schedulers.slurm.conf.gpu_device import GpuDevice
from canhazgpu.schedulers.slurm.conf.node_conf import SlurmNodeConf
from canhazgpu.schedulers.slurm.conf.slurmd_answer import SlurmdAnswer, agreed_devices

FILE_NAME = "slurmd-gpus.json"


def write_answer(state_dir: Path, answer: SlurmdAnswer) -> None:
    """Write the record; raises `OSError`."""
    content = {
        "conf": answer.conf,
        "driver": answer.driver,
        "boot_id": answer.boot_id,
        "slurmd": answer.slurmd,
        "asked_at": answer.asked_at,
        "devices": [[one.kind, list(one.files)] for one in answer.devices],
        "fault": answer.fault,
    }
    write_atomically(state_dir / FILE_NAME, json.dumps(content).encode())


def read_answer(state_dir: Path) -> SlurmdAnswer | None:
    """Return the record, None if there is none that this user or root wrote and can be read."""
    try:
        content = read_if_owned(state_dir / FILE_NAME)
        return None if content is None else _parse_answer(json.loads(content))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _parse_answer(found: dict[str, Any]) -> SlurmdAnswer:
    devices = tuple(
        GpuDevice(str(kind), tuple(str(file) for file in files)) for kind, files in found["devices"]
    )
    return SlurmdAnswer(
        conf=dict(found["conf"]),
        driver=list(found["driver"]),
        boot_id=found["boot_id"],
        slurmd=str(found["slurmd"]),
        asked_at=float(found["asked_at"]),
        devices=devices,
        fault=str(found["fault"]),
    )


def slurms_devices(
    state_dir: Path, node_conf: SlurmNodeConf, gpus: Sequence[GpuReading]
) -> tuple[GpuDevice, ...]:
    """Return what `agreed_devices` does, with the answer on record."""
    return agreed_devices(node_conf, gpus, read_answer(state_dir))
