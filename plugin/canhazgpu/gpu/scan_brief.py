"""The brief form of a scan, from which summaries of many nodes are made; pure.

It lacks what only the details of a GPU show: health, device numbers, utilization. A node's head in
the store has it. `scan_supplement` writes it, for hooks import that anyway.
"""

from __future__ import annotations

from types import NoneType
from typing import Any

from canhazgpu.frozen_dataclass import quick_constructor
from canhazgpu.gpu.scan import GpuProcess, GpuReading, Scan
from canhazgpu.gpu.scan_supplement import BRIEF_FORM

_new_reading = quick_constructor(GpuReading)
_new_process = quick_constructor(GpuProcess)
_TEXT_OR_NONE = (str, NoneType)
_INT_OR_NONE = (int, NoneType)


def scan_from_brief(node: str, data: Any) -> Scan:
    """Return the scan of the node from its brief form, parsed from JSON.

    Raises one of `ValueError`, `TypeError`, `KeyError` and `IndexError` for anything else.
    """
    if data["form"] != BRIEF_FORM:
        raise ValueError("another release's form")
    fault, source, names = data["fault"], data["source"], data["names"]
    _require(type(fault) in _TEXT_OR_NONE and type(source) is str)
    _require(all(type(one) is str for one in names))
    gpus = tuple([_reading(row, names) for row in data["gpus"]])
    return Scan(node, 0.0, 0.0, gpus, fault, source)


def _reading(row: Any, names: list[str]) -> GpuReading:
    uuid, index, name, used, total, listed, *rest = row
    fault = mig_index = parent = None
    if rest:
        fault, mig_index, parent = rest
    _require(
        type(uuid) is str
        and type(index) is int
        and type(name) is int
        and type(used) in _INT_OR_NONE
        and type(total) in _INT_OR_NONE
        and type(fault) in _TEXT_OR_NONE
        and type(mig_index) in _INT_OR_NONE
        and type(parent) in _TEXT_OR_NONE
    )
    processes = tuple(map(_process, listed)) if listed else ()
    return _new_reading(
        index, uuid, None, names[name], used, total, processes, fault, None, mig_index, parent
    )


def _process(row: Any) -> GpuProcess:
    pid, uid, user, name, memory_mb, model, job, ancestors, is_mps_server = row
    _require(
        type(pid) is int
        and type(uid) in _INT_OR_NONE
        and type(user) in _TEXT_OR_NONE
        and type(name) in _TEXT_OR_NONE
        and type(memory_mb) in _INT_OR_NONE
        and type(model) in _TEXT_OR_NONE
        and type(job) in _TEXT_OR_NONE
        and all(type(one) is int for one in ancestors)
    )
    return _new_process(
        pid, uid, user, name, memory_mb, model, job, tuple(ancestors), bool(is_mps_server)
    )


def _require(is_valid: bool) -> None:
    if not is_valid:
        raise TypeError("a value of another type")
