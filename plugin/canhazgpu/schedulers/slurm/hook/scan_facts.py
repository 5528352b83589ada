"""What a hook's scan saw, for the facts of its entry in the history; pure."""

from __future__ import annotations

from typing import Any

from canhazgpu.gpu.scan import GpuReading
from canhazgpu.gpu.usage import processes_text, users_text
from canhazgpu.ledger.port import Observation


def notable_gpus(
    observation: Observation, own: tuple[str, ...], *, others: bool
) -> list[dict[str, Any]]:
    """Return entries for the job's own GPUs, and with `others` for all that are not free."""
    return [
        _gpu_entry(gpu, _gpu_state(gpu, observation))
        for gpu in observation.scan.gpus
        if gpu.uuid in own or (others and _gpu_state(gpu, observation) != "free")
    ]


def _gpu_state(gpu: GpuReading, observation: Observation) -> str:
    if gpu.uuid in observation.unhealthy:
        return "unhealthy"
    if gpu.uuid in observation.unknown or gpu.fault is not None:
        return "unknown"
    return "in use" if gpu.uuid in observation.in_use else "free"


def _gpu_entry(gpu: GpuReading, state: str) -> dict[str, Any]:
    entry: dict[str, Any] = {"gpu": gpu.uuid, "place": gpu.display_index, "state": state}
    if gpu.held_memory_mb is not None:
        entry["used_mb"] = gpu.held_memory_mb
    if gpu.processes:
        entry["who"] = f"{users_text(gpu.processes)}: {processes_text(gpu.processes)}"
    if gpu.fault:
        entry["fault"] = gpu.fault
    return entry
