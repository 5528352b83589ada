"""The environment of a run's command: its GPUs, and the marker of its processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from canhazgpu.errors import InputError
from canhazgpu.gpu.ids import GPUS_VARIABLE
from canhazgpu.gpu.scan import GpuReading
from canhazgpu.node.run_marker import MARKER_VARIABLE


def visible_devices(gpus: Sequence[GpuReading], export: str) -> dict[str, str]:
    """Return the variables that show a program these GPUs and no others, and their UUIDs.

    A MIG instance has no index of CUDA's. Raises `InputError` where an index is not certain.
    """
    uuids = ",".join(gpu.uuid for gpu in gpus)
    if export != "index" or any(gpu.is_mig_instance for gpu in gpus):
        return {"CUDA_VISIBLE_DEVICES": uuids, GPUS_VARIABLE: uuids}
    indices = [gpu.cuda_index for gpu in gpus if gpu.cuda_index is not None]
    if len(indices) < len(gpus):
        raise InputError('CUDA\'s indices of these GPUs are not certain: set run.export = "uuid"')
    return {
        "CUDA_VISIBLE_DEVICES": ",".join(map(str, sorted(indices))),
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        GPUS_VARIABLE: uuids,
    }


def run_environment(
    environ: Mapping[str, str], marker: str, gpus: Sequence[GpuReading], export: str
) -> dict[str, str]:
    """Return the command's environment: the user's with these GPUs and the run's marker."""
    return {**environ, **visible_devices(gpus, export), MARKER_VARIABLE: marker}
