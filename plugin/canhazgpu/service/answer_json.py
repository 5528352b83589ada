"""Answers about the cluster as JSON, for a process that has another one read for it; pure.

Every JSON object names its class. A field that has its default is left out, and one that the reader
does not know is not read, so releases that differ understand each other. A list of JSON is a tuple.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from types import MappingProxyType
from typing import Any

from canhazgpu import errors
from canhazgpu.allocation.intruders import OtherProcesses
from canhazgpu.errors import CanhazgpuError, UnknownNameError
from canhazgpu.gpu.assigned import AssignedGpu
from canhazgpu.gpu.scan import GpuHealth, GpuProcess, GpuReading, MigDeviceNumbers
from canhazgpu.gpu.usage import GpuState, Usage
from canhazgpu.ledger.journal_entries import JournalEntry
from canhazgpu.ledger.values import Claim, Event, Quarantine, Reservation, Share, Waiter
from canhazgpu.node.process_id import ProcessId
from canhazgpu.report.held_time import HeldTime, OwnerUse, TimeSpan
from canhazgpu.report.node_rows import UsedOnNode
from canhazgpu.report.totals import Report
from canhazgpu.report.usage_sum import UsageTotals
from canhazgpu.service.history import ExplainAnswer, JobOnNode, RecordedJob, ReportAnswer
from canhazgpu.service.nodes import CountersAnswer
from canhazgpu.service.status import StatusAnswer
from canhazgpu.status.event_format import NodeEvent
from canhazgpu.status.history.next_steps import Holding
from canhazgpu.status.node_status import GpuStatus, HooksOutage, NodeStatus
from canhazgpu.status.scheduler_jobs import JobNow

CLASSES: tuple[type, ...] = (
    AssignedGpu, Claim, CountersAnswer, Event, ExplainAnswer, GpuHealth, GpuProcess, GpuReading,
    GpuStatus, HeldTime, Holding, HooksOutage, JobNow, JobOnNode, JournalEntry, MigDeviceNumbers,
    NodeEvent, NodeStatus, OtherProcesses, OwnerUse, ProcessId, Quarantine, RecordedJob, Report,
    ReportAnswer, Reservation, Share, StatusAnswer, TimeSpan, UsageTotals, UsedOnNode, Waiter,
)  # fmt: skip
ENUMS: tuple[type[Enum], ...] = (GpuState, Usage)
CLASS = ""
"""The key with the class: no field has this name."""
ERROR, MAPPING, LIST = "error", "mapping", "list"

_FIELDS = {
    one: tuple((field.name, field.default) for field in dataclasses.fields(one)) for one in CLASSES
}
_MEMBERS: Mapping[Any, dict[str, Any]] = {
    member: {CLASS: one.__name__, "value": member.value} for one in ENUMS for member in one
}
_MAKERS: Mapping[str, Callable[..., Any]] = {one.__name__: one for one in CLASSES}
_ENUMS = {one.__name__: one for one in ENUMS}
_ERRORS = {
    name: one
    for name, one in vars(errors).items()
    # A CommandError is made in another way, and no answer.
    if isinstance(one, type) and issubclass(one, CanhazgpuError) and name != "CommandError"
}


def encoded(value: object) -> str:
    """Return an answer, or an error, as one line."""
    return json.dumps(value, default=_object_of, separators=(",", ":"))


def decoded(line: str) -> Any:
    """Return what `encoded` was given; an error is returned, too. Raises `ValueError`."""
    try:
        return json.loads(line, object_hook=_value_of)
    except (RecursionError, TypeError, KeyError, AttributeError) as exc:
        raise ValueError(f"no answer: {exc}") from exc


def _object_of(value: Any) -> dict[str, Any]:
    kind = type(value)
    if fields := _FIELDS.get(kind):
        found: dict[str, Any] = {CLASS: kind.__name__}
        for name, default in fields:
            one = getattr(value, name)
            if one is not default:
                marked = _MARKED.get(type(one))
                found[name] = marked(one) if marked else one
        return found
    if isinstance(value, Enum):
        return _MEMBERS[value]
    if isinstance(value, CanhazgpuError):
        told: dict[str, Any] = {CLASS: ERROR, "kind": kind.__name__, "text": str(value)}
        told["next"] = value.next_step
        if isinstance(value, UnknownNameError):
            told |= {"of": value.kind, "known": value.known}
        return told
    raise TypeError(f"{kind.__name__} is no part of an answer")


def _mapping(value: Mapping[str, Any]) -> dict[str, Any]:
    # As pairs: any text may be a name in it, and what it holds is JSON of others.
    return {CLASS: MAPPING, "of": [(name, _plain(one)) for name, one in value.items()]}


def _list(value: Iterable[Any]) -> dict[str, Any]:
    return {CLASS: LIST, "of": [_plain(one) for one in value]}


_MARKED: Mapping[type, Callable[[Any], Any]] = {
    dict: _mapping,
    MappingProxyType: _mapping,
    list: _list,
}


def _plain(value: Any) -> Any:
    marked = _MARKED.get(type(value))
    return marked(value) if marked else value


class _List(list[Any]):
    """A list that was one before, too."""


def _value_of(found: dict[str, Any]) -> Any:
    kind = found.pop(CLASS)
    maker = _MAKERS.get(kind)
    if maker is not None:
        for name, one in found.items():
            if type(one) is list:
                found[name] = _tuple(one)
        try:
            return maker(**found)
        except TypeError:
            known = {field.name for field in dataclasses.fields(maker)}  # type: ignore[arg-type]
            return maker(**{name: one for name, one in found.items() if name in known})
    if kind in _ENUMS:
        return _ENUMS[kind](found["value"])
    if kind == MAPPING:
        return {name: _whole(one) for name, one in found["of"]}
    if kind == LIST:
        return _List(_whole(one) for one in found["of"])
    if kind != ERROR:
        raise ValueError(f"{str(kind)[:40]!r} is of another release")
    return _error(found)


def _whole(value: Any) -> Any:
    return _tuple(value) if type(value) is list else value


def _tuple(values: Iterable[Any]) -> tuple[Any, ...]:
    return tuple([_tuple(one) if type(one) is list else one for one in values])


def _error(found: Mapping[str, Any]) -> CanhazgpuError:
    kind = _ERRORS.get(str(found["kind"]), CanhazgpuError)
    error: CanhazgpuError = kind(str(found["text"]), next_step=found["next"])
    if isinstance(error, UnknownNameError):
        error.kind, error.known = str(found["of"]), tuple(map(str, found["known"]))
    return error
