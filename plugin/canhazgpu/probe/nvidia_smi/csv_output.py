"""The fields that nvidia-smi is asked for, and the parser of its CSV; pure.

The parser is strict, because a misread line could make a GPU look free. Any value in brackets is
None. ``[N/A]`` and the like are no fault. Other ones (``[GPU is lost]``, ``[Unknown Error]``) are a
fault of the GPU if its use is judged by that field. A malformed line is a `ScanError`.

Fields and formats: ``nvidia-smi --help-query-gpu`` and ``--help-query-compute-apps``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from canhazgpu.errors import ScanError
from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.gpu.scan import GpuHealth
from canhazgpu.probe import fault_messages

FORMAT = "csv,noheader,nounits"
APP_FIELDS = ("pid", "gpu_uuid", "used_memory")

_INDEX, _UUID, _BUS, _USED, _TOTAL = "index", "uuid", "pci.bus_id", "memory.used", "memory.total"
_NAME = "name"
_MIG = "mig.mode.current"
_ACTION = "gpu_recovery_action"
_REMAP_PENDING, _REMAP_FAILED = "remapped_rows.pending", "remapped_rows.failure"
_RETIREMENT = "retired_pages.pending"
_ECC = "ecc.errors.uncorrected.volatile.total"
_MODE = "compute_mode"
_UTILIZATION = "utilization.gpu"

_REQUIRED = (_INDEX, _UUID, _BUS, _USED, _TOTAL)
_OPTIONAL = (
    _UTILIZATION,
    _MODE,
    _ECC,
    _RETIREMENT,
    _MIG,
    _REMAP_PENDING,
    _REMAP_FAILED,
    _ACTION,
)
"""In the order of their introduction: a version that refuses a field lacks those after it too."""
_SINCE_DRIVER_570 = (_REMAP_PENDING, _REMAP_FAILED, _ACTION)

NO_DEVICES = "No devices were found"
_UNAVAILABLE_WORDS = frozenset({"n/a", "not supported", "not available"})
_RECOVERY_ACTIONS = {
    "none": "none",
    "reset": "reset",
    "gpu reset": "reset",
    "reboot": "reboot",
    "node reboot": "reboot",
    "drain p2p": "drain",
    "drain and reset": "drain and reset",
}
_COMPUTE_MODES = {
    "default": "default",
    "exclusive_thread": "exclusive thread",
    "prohibited": "prohibited",
    "exclusive_process": "exclusive process",
}
_FLAGS = {"yes": True, "no": False}
MAX_PERCENT = 100
_NUMBER = re.compile(r"[0-9]{1,18}")
_UNKNOWN_FIELD = re.compile(r'Field "([^"]+)" is not a valid field to query')


@dataclass(frozen=True, slots=True)
class SmiGpu:
    """A GPU as nvidia-smi reports it."""

    index: int
    uuid: str
    bus_id: str
    name: str
    memory_used_mb: int | None
    memory_total_mb: int | None
    health: GpuHealth
    fault: str | None
    utilization_percent: int | None = None


@dataclass(frozen=True, slots=True)
class SmiApp:
    """A compute process on a GPU; `fault` says why the GPU's processes are not reported."""

    uuid: str
    pid: int = 0
    memory_mb: int | None = None
    fault: str | None = None


def gpu_fields(driver_version: str = "") -> tuple[str, ...]:
    """Return the fields that a driver of this version knows; all fields for an unknown version.

    The name is the last one, because only the name may contain commas.
    """
    major = driver_version.partition(".")[0]
    old = major.isdecimal() and int(major) < 570
    return (
        *_REQUIRED,
        *(one for one in _OPTIONAL if not (old and one in _SINCE_DRIVER_570)),
        _NAME,
    )


def fields_without_unknown(fields: Sequence[str], answer: str) -> tuple[str, ...] | None:
    """Return the fields for another query, where the answer refuses an optional one; else None.

    The MIG mode is left out only where it is the refused field: nvidia-smi then knows no MIG.
    """
    match = _UNKNOWN_FIELD.search(answer)
    if match is None or match[1] not in _OPTIONAL or match[1] not in fields:
        return None
    refused = match[1]
    if refused == _UTILIZATION:
        # The oldest of them, and nothing is judged by it.
        return tuple(one for one in fields if one != refused)
    newer = set(_OPTIONAL[_OPTIONAL.index(refused) :]) - {_MIG}
    return tuple(one for one in fields if one != refused and one not in newer)


def parse_gpus(text: str, fields: Sequence[str]) -> tuple[SmiGpu, ...]:
    """Return the GPUs in the output of ``--query-gpu`` with these fields."""
    if not text.strip():
        raise ScanError(fault_messages.output_fault("nvidia-smi printed nothing"))
    return tuple(
        _parse_gpu(dict(zip(fields, row, strict=True)), row_index)
        for row_index, row in enumerate(_rows(text, len(fields)))
    )


def parse_apps(text: str) -> tuple[SmiApp, ...]:
    """Return the processes in the output of ``--query-compute-apps`` with `APP_FIELDS`."""
    return tuple(_parse_app(*row) for row in _rows(text, len(APP_FIELDS)))


def _rows(text: str, columns: int) -> list[list[str]]:
    if text.strip() == NO_DEVICES:
        return []
    if text and not text.endswith("\n"):
        raise ScanError(fault_messages.output_fault("nvidia-smi's output is cut off"))
    lines = text.split("\n")[:-1]
    rows = [[cell.strip() for cell in line.split(",", columns - 1)] for line in lines]
    for row in rows:
        if len(row) != columns or not "".join(row).isprintable():
            raise ScanError(
                fault_messages.output_fault("nvidia-smi printed a line that is not understood")
            )
    return rows


def _parse_gpu(cells: dict[str, str], row_index: int) -> SmiGpu:
    uuid, index = cells[_UUID], _parse_number(cells[_INDEX])
    return SmiGpu(
        index=row_index if index is None else index,
        uuid="" if _placeholder_text(uuid) is not None else uuid,
        bus_id=cells[_BUS],
        name="" if _placeholder_text(cells[_NAME]) is not None else cells[_NAME],
        memory_used_mb=_parse_number(cells[_USED]),
        memory_total_mb=_parse_number(cells[_TOTAL]),
        health=_health(cells),
        fault=_fault(cells),
        utilization_percent=_parse_percent(cells.get(_UTILIZATION, "")),
    )


def _health(cells: dict[str, str]) -> GpuHealth:
    return GpuHealth(
        recovery_action=_RECOVERY_ACTIONS.get(cells.get(_ACTION, "").lower()),
        remap_pending=_FLAGS.get(cells.get(_REMAP_PENDING, "").lower()),
        remap_failed=_FLAGS.get(cells.get(_REMAP_FAILED, "").lower()),
        retirement_pending=_FLAGS.get(cells.get(_RETIREMENT, "").lower()),
        ecc_uncorrected=_parse_number(cells.get(_ECC, "")),
        compute_mode=_COMPUTE_MODES.get(cells.get(_MODE, "").lower()),
    )


def _fault(cells: dict[str, str]) -> str | None:
    """Return why the use cannot be judged by these values, None where it can."""
    for field in (_UUID, _USED, _TOTAL, _MIG):
        words = _placeholder_text(cells.get(field, ""))
        if words is not None and words.lower() not in _UNAVAILABLE_WORDS:
            return fault_messages.value_fault(field, words)
    if cells.get(_MIG, "").lower() == "enabled":
        return fault_messages.MIG_NEEDS_NVML
    for field in (_USED, _TOTAL):
        if _parse_number(cells[field]) is None and _placeholder_text(cells[field]) is None:
            return fault_messages.output_fault(f"nvidia-smi gives {field} as {cells[field][:40]!r}")
    return None


def _parse_app(pid: str, uuid: str, memory: str) -> SmiApp:
    if not uuid or _placeholder_text(uuid) is not None:
        raise ScanError(
            fault_messages.output_fault("nvidia-smi tells of a process, but not on which GPU")
        )
    words = _placeholder_text(pid)
    if words is not None:
        return SmiApp(uuid, fault=fault_messages.value_fault("processes", words))
    number = _parse_number(pid)
    amount = _parse_number(memory)
    if number is None or (amount is None and _placeholder_text(memory) is None):
        raise ScanError(
            fault_messages.output_fault("nvidia-smi printed a process that is not understood")
        )
    return SmiApp(uuid, number, amount)


def _placeholder_text(cell: str) -> str | None:
    """Return the words of ``[words]``, which nvidia-smi prints for a missing value."""
    return cell[1:-1].strip() if cell.startswith("[") and cell.endswith("]") else None


def _parse_percent(cell: str) -> int | None:
    number = _parse_number(cell)
    return None if number is None or number > MAX_PERCENT else number


def _parse_number(cell: str) -> int | None:
    return int(cell) if _NUMBER.fullmatch(cell) else None
