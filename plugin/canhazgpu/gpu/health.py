"""Policy of health: which GPUs to quarantine, why, and what an administrator can do; pure.

A value that a GPU does not report is no fault. A GPU that could not be read is unknown, not
unhealthy.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace

from canhazgpu.gpu.scan import GpuHealth, GpuReading, Scan, whole_gpus

NO_ACTION = "none"
DEFAULT_COMPUTE_MODE = "default"
EXCLUSIVE_PROCESS = "exclusive process"
MPS_COMPUTE_MODE = "mps_compute_mode"
"""The check in place of ``compute_mode`` on a node whose GPUs are shared by MPS."""


def unhealthy_gpus(readings: Iterable[GpuReading], checks: Collection[str]) -> dict[str, str]:
    """Return the GPUs (UUIDs) that must not be granted, each with the reason.

    `checks` are the configured ones, of ``validation.health_checks``. A MIG instance shares the
    health of its GPU: an instance without a health of its own has that of its parent or a sibling.
    """
    given = tuple(readings)
    shared = _health_of_whole_gpus(given)
    found = {}
    for gpu in given:
        health = gpu.health or shared.get(gpu.parent_uuid or "")
        if not gpu.uuid or gpu.fault is not None or health is None:
            continue
        if faults := [text for one in checks for text in _check_function(one)(health, gpu.index)]:
            found[gpu.uuid] = "; ".join(dict.fromkeys(faults))
    return found


def count_whole_gpus(readings: Iterable[GpuReading]) -> int:
    """Return how many GPUs there are; MIG instances count as the GPU that they divide."""
    return len({gpu.index for gpu in readings})


def count_text(readings: Collection[GpuReading]) -> str:
    """Return how many GPUs there are, ``3 GPUs`` or ``2 GPUs and 7 MIG instances``."""
    instances = sum(gpu.is_mig_instance for gpu in readings)
    whole = len(readings) - instances
    if not instances:
        return f"{whole} GPUs"
    parts = f"{instances} MIG instance{'' if instances == 1 else 's'}"
    return f"{whole} GPU{'' if whole == 1 else 's'} and {parts}" if whole else parts


def checks_with_mps(checks: Collection[str]) -> tuple[str, ...]:
    """Return the checks for a node whose GPUs are shared by MPS, in whatever compute mode it needs.

    NVIDIA recommends the mode ``exclusive process`` there: then only the MPS server uses the GPU.
    """
    return tuple(MPS_COMPUTE_MODE if one == "compute_mode" else one for one in checks)


def missing_gpus_text(expected: int, seen: int) -> str:
    """Return how many of the expected GPUs were found; empty where none is missing.

    `expected` is 0 where the number is not known.
    """
    if seen >= expected:
        return ""
    return f"{seen} of {expected} GPUs are there"


def find_lost_gpus(known: Mapping[str, int], now: Scan) -> dict[str, int]:
    """Return those of the known GPUs (UUID to index) that the scan lacks; none if it has a fault.

    A GPU at whose index there is now one without UUID is not lost: it cannot be read.
    """
    if now.fault is not None:
        return {}
    present = whole_gpus(now).keys()
    without_uuid = {gpu.index for gpu in now.gpus if not gpu.uuid}
    return {
        uuid: index
        for uuid, index in known.items()
        if uuid not in present and index not in without_uuid
    }


def with_known_uuids(known: Mapping[str, int], now: Scan) -> Scan:
    """Return the scan with the UUIDs of GPUs that fell off the bus and do not tell it any more.

    Where a GPU without UUID is at the index of a known GPU which is at no other index, it is that
    one. It keeps its fault.
    """
    present = whole_gpus(now).keys()
    missing = {index: uuid for uuid, index in known.items() if uuid not in present}
    return replace(
        now,
        gpus=tuple(
            replace(gpu, uuid=missing[gpu.index])
            if not gpu.uuid and gpu.fault is not None and gpu.index in missing
            else gpu
            for gpu in now.gpus
        ),
    )


def _health_of_whole_gpus(readings: Iterable[GpuReading]) -> dict[str, GpuHealth]:
    """Return the reported health by the UUID of the whole GPU."""
    found: dict[str, GpuHealth] = {}
    for gpu in readings:
        if gpu.health is not None:
            found.setdefault(gpu.parent_uuid or gpu.uuid, gpu.health)
    return found


def _recovery_action(health: GpuHealth, index: int) -> Iterator[str]:
    action = health.recovery_action
    if action in (None, "", NO_ACTION):
        return
    advice = {
        "reset": f"needs a reset: {_reset_command(index)}",
        "reboot": "needs a reboot of the node",
        "drain": f"needs its peer-to-peer work ended, then a look at: nvidia-smi -q -i {index}",
        "drain and reset": f"needs its work ended and a reset: {_reset_command(index)}",
    }
    yield advice.get(str(action), f"asks for {action!r}: see nvidia-smi -q -i {index}")


def _remap(health: GpuHealth, index: int) -> Iterator[str]:
    if health.remap_pending:
        yield f"row remap pending, reset the GPU: {_reset_command(index)}"
    if health.remap_failed:
        yield "row remap failed, have the GPU replaced"


def _retirement(health: GpuHealth, index: int) -> Iterator[str]:
    if health.retirement_pending:
        yield f"page retirement pending, reset the GPU: {_reset_command(index)}"


def _ecc(health: GpuHealth, index: int) -> Iterator[str]:
    count = health.ecc_uncorrected or 0
    if count > 0:
        errors = "error" if count == 1 else "errors"
        yield f"{count} uncorrected memory {errors}, reset the GPU: {_reset_command(index)}"


def _compute_mode(health: GpuHealth, index: int) -> Iterator[str]:
    if health.compute_mode not in (None, "", DEFAULT_COMPUTE_MODE):
        yield f"compute mode is {health.compute_mode}, set the default: nvidia-smi -c 0 -i {index}"


def _mps_compute_mode(health: GpuHealth, index: int) -> Iterator[str]:
    if health.compute_mode != EXCLUSIVE_PROCESS:
        yield from _compute_mode(health, index)


def _reset_command(index: int) -> str:
    return f"nvidia-smi --gpu-reset -i {index}"


CHECK_FUNCTIONS: dict[str, Callable[[GpuHealth, int], Iterator[str]]] = {
    "recovery_action": _recovery_action,
    "remap": _remap,
    "retirement": _retirement,
    "ecc": _ecc,
    "compute_mode": _compute_mode,
}
"""The checks of ``validation.health_checks``; each yields one text for every fault."""


def _check_function(name: str) -> Callable[[GpuHealth, int], Iterator[str]]:
    return _mps_compute_mode if name == MPS_COMPUTE_MODE else CHECK_FUNCTIONS[name]
