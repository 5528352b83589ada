"""Read a GPU's health through NVML, in two calls; a field that NVML does not report is None.

Reading health never fails: an error here says nothing of the use of the GPU.
"""

from __future__ import annotations

from typing import Any

import pynvml

from canhazgpu.gpu.scan import GpuHealth
from canhazgpu.probe.nvml.calls import NVML_ERRORS

MAX_COUNTER = (1 << 63) - 1
"""NVML reports a larger counter for a value that is not available."""

RECOVERY_ACTION = 230  # NVML_FI_DEV_GET_GPU_RECOVERY_ACTION, which older pynvml lacks
HEALTH_FIELDS = (
    RECOVERY_ACTION,
    pynvml.NVML_FI_DEV_REMAPPED_PENDING,
    pynvml.NVML_FI_DEV_REMAPPED_FAILURE,
    pynvml.NVML_FI_DEV_RETIRED_PENDING,
    pynvml.NVML_FI_DEV_ECC_DBE_VOL_TOTAL,
)
RECOVERY_ACTIONS = ("none", "reset", "reboot", "drain", "drain and reset")
COMPUTE_MODES = ("default", "exclusive thread", "prohibited", "exclusive process")

_MEMBERS = {  # of the union that a field's value is, by NVML's nvmlValueType_t
    pynvml.NVML_VALUE_TYPE_UNSIGNED_INT: "uiVal",
    pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG: "ulVal",
    pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG: "ullVal",
    pynvml.NVML_VALUE_TYPE_SIGNED_LONG_LONG: "sllVal",
}


def read_health(handle: Any) -> GpuHealth:
    """Return the health of a whole GPU."""
    action, pending, failed, retirement, ecc = _field_values(handle)
    return GpuHealth(
        recovery_action=_name_of_value(RECOVERY_ACTIONS, action),
        remap_pending=_flag(pending),
        remap_failed=_flag(failed),
        retirement_pending=_flag(retirement),
        ecc_uncorrected=ecc,
        compute_mode=_name_of_value(COMPUTE_MODES, _compute_mode(handle)),
    )


def _field_values(handle: Any) -> list[int | None]:
    """Return the values of `HEALTH_FIELDS`; each field has a return code of its own."""
    try:
        return [
            _field_value(field) for field in pynvml.nvmlDeviceGetFieldValues(handle, HEALTH_FIELDS)
        ]
    except NVML_ERRORS:
        return [None] * len(HEALTH_FIELDS)


def _field_value(field: Any) -> int | None:
    member = _MEMBERS.get(field.valueType)
    if field.nvmlReturn != pynvml.NVML_SUCCESS or member is None:
        return None
    value = int(getattr(field.value, member))
    return value if 0 <= value <= MAX_COUNTER else None


def _compute_mode(handle: Any) -> int | None:
    try:
        return int(pynvml.nvmlDeviceGetComputeMode(handle))
    except NVML_ERRORS:
        return None


def _name_of_value(words: tuple[str, ...], number: int | None) -> str | None:
    return words[number] if number is not None and number < len(words) else None


def _flag(number: int | None) -> bool | None:
    return bool(number) if number in (0, 1) else None
