"""A scan of a node's GPUs as JSON.

It comes through the pipe from the scanning child, and from the scan published in the ledger.
`scan_from_json` trusts neither: anything malformed raises `ScanError`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from types import NoneType
from typing import Any, TypeVar

from canhazgpu.errors import ScanError
from canhazgpu.gpu.scan import GpuHealth, GpuProcess, GpuReading, MigDeviceNumbers, Scan

T = TypeVar("T")


def scan_to_json(scan: Scan) -> str:
    """Return the scan as compact JSON."""
    data = {**_fields(scan), "gpus": [_reading_to_dict(gpu) for gpu in scan.gpus]}
    for gpu in data["gpus"]:
        for name in ("mig_devices", "cuda_index", "utilization_percent"):
            if gpu[name] is None:
                del gpu[name]
        for process in gpu["processes"]:
            # Releases that do not know it take a scan that has it for malformed.
            if not process["is_mps_server"]:
                del process["is_mps_server"]
    return json.dumps(data, separators=(",", ":"))


def _fields(value: Any) -> dict[str, Any]:
    """Return the fields of a value; `dataclasses.asdict` copies each of them, and takes longer."""
    return {name: getattr(value, name) for name in value.__slots__}


def _reading_to_dict(gpu: GpuReading) -> dict[str, Any]:
    return {
        **_fields(gpu),
        "processes": [_fields(process) for process in gpu.processes],
        "health": None if gpu.health is None else _fields(gpu.health),
        "mig_devices": None if gpu.mig_devices is None else _fields(gpu.mig_devices),
    }


def scan_to_published_json(scan: Scan) -> str:
    """Return the scan as JSON for other nodes, which need no device numbers and no CUDA indices.

    Releases before those take a scan that has them for malformed. They would take one with the
    utilization for malformed too: `scan_supplement` has it.
    """
    gpus = tuple(
        replace(gpu, mig_devices=None, cuda_index=None, utilization_percent=None)
        for gpu in scan.gpus
    )
    return scan_to_json(replace(scan, gpus=gpus))


def scan_from_json(text: str | bytes) -> Scan:
    """Return the scan that `scan_to_json` wrote; raises `ScanError` for anything else.

    It checks types only. `judge_usage` judges whether a value is possible.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise _malformed(exc) from exc
    return scan_from_value(data)


def scan_from_value(data: Any) -> Scan:
    """Return the scan that this is, parsed from JSON; raises as `scan_from_json` does."""
    try:
        fields = dict(data)
        gpus = tuple(_reading_from_json(gpu) for gpu in fields.pop("gpus"))
        return _with_valid_types(Scan(gpus=gpus, **fields), _SCAN_TYPES)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as exc:
        raise _malformed(exc) from exc


def _malformed(problem: Exception) -> ScanError:
    return ScanError(f"the result of a scan is malformed: {problem}")


def _reading_from_json(data: Mapping[str, Any]) -> GpuReading:
    fields = dict(data)
    processes = tuple(_process_from_json(process) for process in fields.pop("processes"))
    form = fields.pop("health", None)
    health = None if form is None else _with_valid_types(GpuHealth(**form), _HEALTH_TYPES)
    numbers = fields.pop("mig_devices", None)
    devices = (
        None if numbers is None else _with_valid_types(MigDeviceNumbers(**numbers), _MIG_TYPES)
    )
    return _with_valid_types(
        GpuReading(processes=processes, health=health, mig_devices=devices, **fields),
        _READING_TYPES,
    )


def _process_from_json(data: Mapping[str, Any]) -> GpuProcess:
    fields = dict(data)
    ancestors = fields.pop("ancestors", [])
    if not isinstance(ancestors, list) or not all(type(pid) is int for pid in ancestors):
        raise TypeError("ancestors is no list of pids")
    return _with_valid_types(GpuProcess(ancestors=tuple(ancestors), **fields), _PROCESS_TYPES)


_NUMBER = (int, float)
_OPTIONAL_INT = (int, NoneType)
_OPTIONAL_STR = (str, NoneType)
_OPTIONAL_BOOL = (bool, NoneType)
_PROCESS_TYPES = {
    "pid": (int,),
    "uid": _OPTIONAL_INT,
    "user": _OPTIONAL_STR,
    "name": _OPTIONAL_STR,
    "memory_mb": _OPTIONAL_INT,
    "model": _OPTIONAL_STR,
    "job": _OPTIONAL_STR,
    "is_mps_server": (bool,),
}
_HEALTH_TYPES = {
    "recovery_action": _OPTIONAL_STR,
    "remap_pending": _OPTIONAL_BOOL,
    "remap_failed": _OPTIONAL_BOOL,
    "retirement_pending": _OPTIONAL_BOOL,
    "ecc_uncorrected": _OPTIONAL_INT,
    "compute_mode": _OPTIONAL_STR,
}
_MIG_TYPES = {
    "gpu": _OPTIONAL_INT,
    "gpu_instance": _OPTIONAL_INT,
    "compute_instance": _OPTIONAL_INT,
}
_READING_TYPES = {
    "index": (int,),
    "uuid": (str,),
    "device_number": _OPTIONAL_INT,
    "name": (str,),
    "memory_used_mb": _OPTIONAL_INT,
    "memory_total_mb": _OPTIONAL_INT,
    "fault": _OPTIONAL_STR,
    "mig_index": _OPTIONAL_INT,
    "parent_uuid": _OPTIONAL_STR,
    "cuda_index": _OPTIONAL_INT,
    "utilization_percent": _OPTIONAL_INT,
}
_SCAN_TYPES = {
    "node": (str,),
    "started_at": _NUMBER,
    "took_s": _NUMBER,
    "fault": _OPTIONAL_STR,
    "source": (str,),
}


def _with_valid_types(value: T, types: Mapping[str, tuple[type, ...]]) -> T:
    """Return the value if its fields have these types; bool and NaN are no numbers."""
    for name, accepted in types.items():
        given = getattr(value, name)
        kind = type(given)
        if kind in accepted and kind is not float:
            continue
        if not isinstance(given, accepted) or (type(given) is bool and bool not in accepted):
            raise TypeError(f"{name} is {type(given).__name__}")
        if isinstance(given, float) and not math.isfinite(given):
            raise ValueError(f"{name} is {given}")
    return value
