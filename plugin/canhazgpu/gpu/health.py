"""Pure policy of health: which GPUs to hold back, why, and what clears it.

What a GPU does not tell is never held against it, and one that could not be read is unknown, not
unhealthy.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator

from canhazgpu.gpu.scan import GpuHealth, GpuReading, Scan

NO_ACTION = "none"
DEFAULT_COMPUTE_MODE = "default"


def unhealthy_gpus(readings: Iterable[GpuReading], checks: Collection[str]) -> dict[str, str]:
    """Return the GPUs (UUIDs) that must not be granted, each with the reason.

    `checks` are those in force, of ``validation.health_checks``. A MIG instance shares the health
    of its GPU: where it tells none of its own, its parent's or a sibling's counts.
    """
    given = tuple(readings)
    shared = _health_of_whole_gpus(given)
    found = {}
    for gpu in given:
        health = gpu.health or shared.get(gpu.parent_uuid or "")
        if not gpu.uuid or gpu.fault is not None or health is None:
            continue
        if faults := [text for one in checks for text in CHECK_FUNCTIONS[one](health, gpu.index)]:
            found[gpu.uuid] = "; ".join(dict.fromkeys(faults))
    return found


def missing_gpus_text(expected: int, seen: int) -> str:
    """Say how many GPUs the node lacks; empty where it lacks none or `expected` is 0, unknown."""
    if seen >= expected:
        return ""
    return f"{seen} of {expected} GPUs are there"


def find_lost_gpus(before: Scan | None, now: Scan) -> tuple[GpuReading, ...]:
    """Return the GPUs that an earlier scan had and this one, which worked, has lost.

    A GPU divided into MIG instances, or put together again, is not lost, nor is an instance
    while its GPU is there, nor one in whose place is a GPU that cannot be identified.
    """
    if before is None or now.fault is not None:
        return ()
    here = {uuid for gpu in now.gpus for uuid in (gpu.uuid, gpu.parent_uuid) if uuid}
    nameless = {gpu.index for gpu in now.gpus if not gpu.uuid}
    return tuple(
        gpu
        for gpu in before.gpus
        if gpu.uuid and gpu.index not in nameless and not here & {gpu.uuid, gpu.parent_uuid}
    )


def _health_of_whole_gpus(readings: Iterable[GpuReading]) -> dict[str, GpuHealth]:
    """Return what is told of each whole GPU's health, by its UUID."""
    told: dict[str, GpuHealth] = {}
    for gpu in readings:
        if gpu.health is not None:
            told.setdefault(gpu.parent_uuid or gpu.uuid, gpu.health)
    return told


def _recovery_action(health: GpuHealth, index: int) -> Iterator[str]:
    action = health.recovery_action
    if action in (None, "", NO_ACTION):
        return
    todo = {
        "reset": f"needs a reset: {_reset_command(index)}",
        "reboot": "needs a reboot of the node",
        "drain": f"needs its peer-to-peer work ended, then a look at: nvidia-smi -q -i {index}",
        "drain and reset": f"needs its work ended and a reset: {_reset_command(index)}",
    }
    yield todo.get(str(action), f"asks for {action!r}: see nvidia-smi -q -i {index}")


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


def _reset_command(index: int) -> str:
    return f"nvidia-smi --gpu-reset -i {index}"


CHECK_FUNCTIONS: dict[str, Callable[[GpuHealth, int], Iterator[str]]] = {
    "recovery_action": _recovery_action,
    "remap": _remap,
    "retirement": _retirement,
    "ecc": _ecc,
    "compute_mode": _compute_mode,
}
"""Each check of ``validation.health_checks``: yields one text for every fault it finds."""
