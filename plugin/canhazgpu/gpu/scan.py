"""What one reading of a node's GPUs found, as values, and their JSON form.

The JSON form crosses two borders: the pipe from the scanning child, and the scan published in
the ledger. `scan_from_json` therefore trusts nothing: anything malformed raises `ScanError`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import NoneType
from typing import Any, TypeVar

from canhazgpu.errors import ScanError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class GpuProcess:
    """A process that holds a GPU; a field the node would not tell is None."""

    pid: int
    uid: int | None
    user: str | None
    name: str | None
    memory_mb: int | None


@dataclass(frozen=True, slots=True)
class GpuReading:
    """One GPU at the time of a scan.

    `fault` says why the GPU could not be read; a GPU with a fault is in an unknown state, never
    available. `memory_used_mb` without a fault is None where the GPU has no memory of its own
    (unified memory); its processes then tell whether it is in use. `uuid` is empty only for a
    GPU that could not even be identified.
    """

    index: int
    uuid: str
    device_number: int | None
    name: str
    memory_used_mb: int | None
    memory_total_mb: int | None
    processes: tuple[GpuProcess, ...] = ()
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class Scan:
    """One reading of all GPUs of a node; `started_at` and `took_s` are seconds of the node's clock.

    `fault` says why nothing could be read at all.
    """

    node: str
    started_at: float
    took_s: float
    gpus: tuple[GpuReading, ...]
    fault: str | None = None

    def by_uuid(self) -> dict[str, GpuReading]:
        """Return the identified GPUs by UUID."""
        return {gpu.uuid: gpu for gpu in self.gpus if gpu.uuid}


def scan_to_json(scan: Scan) -> str:
    """Return the scan as compact JSON."""
    return json.dumps(asdict(scan), separators=(",", ":"))


def scan_from_json(text: str | bytes) -> Scan:
    """Return the scan that `scan_to_json` wrote; raises `ScanError` for anything else.

    Only types are checked: whether an amount is possible is policy's to judge.
    """
    try:
        data = json.loads(text)
        gpus = tuple(_reading(gpu) for gpu in data.pop("gpus"))
        return _checked(Scan(gpus=gpus, **data), _SCAN_TYPES)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as exc:
        raise ScanError(f"the result of a scan is malformed: {exc}") from exc


def _reading(data: Mapping[str, Any]) -> GpuReading:
    fields = dict(data)
    processes = tuple(
        _checked(GpuProcess(**process), _PROCESS_TYPES) for process in fields.pop("processes")
    )
    return _checked(GpuReading(processes=processes, **fields), _READING_TYPES)


_NUMBER = (int, float)
_OPTIONAL_INT = (int, NoneType)
_OPTIONAL_STR = (str, NoneType)
_PROCESS_TYPES = {
    "pid": (int,),
    "uid": _OPTIONAL_INT,
    "user": _OPTIONAL_STR,
    "name": _OPTIONAL_STR,
    "memory_mb": _OPTIONAL_INT,
}
_READING_TYPES = {
    "index": (int,),
    "uuid": (str,),
    "device_number": _OPTIONAL_INT,
    "name": (str,),
    "memory_used_mb": _OPTIONAL_INT,
    "memory_total_mb": _OPTIONAL_INT,
    "fault": _OPTIONAL_STR,
}
_SCAN_TYPES = {
    "node": (str,),
    "started_at": _NUMBER,
    "took_s": _NUMBER,
    "fault": _OPTIONAL_STR,
}


def _checked(value: T, types: Mapping[str, tuple[type, ...]]) -> T:
    """Return the value whose fields have these types; bool is no number, nor is NaN."""
    for name, accepted in types.items():
        given = getattr(value, name)
        if not isinstance(given, accepted) or isinstance(given, bool):
            raise TypeError(f"{name} is {type(given).__name__}")
        if isinstance(given, float) and not math.isfinite(given):
            raise ValueError(f"{name} is {given}")
    return value
