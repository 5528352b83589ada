"""A node's GPUs in one line: how many there are in each state, and whose they are; pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.gpu.scan import GpuProcess
from canhazgpu.gpu.usage import GpuState
from canhazgpu.status.details_cell import WITHOUT_RESERVATION
from canhazgpu.status.json_format import iso_time, outage_to_dict
from canhazgpu.status.node_status import GpuStatus, HooksOutage, NodeStatus
from canhazgpu.status.table_cells import Tone, node_notes

UNKNOWN_USER = "unknown"


@dataclass(frozen=True, slots=True)
class UserGroup:
    """Some GPUs, and their users by name, each once."""

    count: int
    users: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeSummary:
    """The GPUs of a node that a filter shows, counted by state.

    `total` counts all GPUs of the node, whatever the filter; a MIG instance is a GPU of its own.
    `intruded` are those reserved GPUs that others use, with these others. `notes` are those of the
    node's heading.
    """

    node: str
    total: int
    available: int
    reserved: UserGroup
    unreserved: UserGroup
    intruded: UserGroup
    quarantined: int
    unknown: int
    waiting: int
    notes: tuple[str, ...] = ()


def summarize(status: NodeStatus) -> NodeSummary:
    """Return the summary of a node."""
    by_state: dict[GpuState, list[GpuStatus]] = {state: [] for state in GpuState}
    for gpu in status.gpus:
        by_state[gpu.state].append(gpu)
    reserved = by_state[GpuState.RESERVED]
    return NodeSummary(
        node=status.node,
        total=len(status.all_gpus),
        available=len(by_state[GpuState.AVAILABLE]),
        reserved=_group(reserved, lambda gpu: (one.claim.user for one in gpu.holders)),
        unreserved=_group(by_state[GpuState.UNRESERVED], lambda gpu: _users(gpu.processes)),
        intruded=_group(
            [gpu for gpu in reserved if gpu.intruders], lambda gpu: _users(gpu.intruders)
        ),
        quarantined=len(by_state[GpuState.QUARANTINED]),
        unknown=len(by_state[GpuState.UNKNOWN]),
        waiting=len(status.queue),
        notes=tuple(node_notes(status)),
    )


def summary_parts(
    one: NodeSummary, *, max_users: int | None, shows_none_free: bool = True
) -> Iterator[tuple[str, Tone]]:
    """Yield the parts of the line behind the node and its number of GPUs, with their tones.

    Each list of users names `max_users` at most, None for all of them. `shows_none_free`: no
    available GPU is worth a part, too.
    """
    if one.available or shows_none_free:
        yield f"{one.available} free", Tone.FREE if one.available else Tone.PLAIN
    if one.reserved.count:
        yield _group_text(one.reserved, max_users), Tone.IN_USE
    if one.intruded.count:
        who = _names_text(one.intruded.users, max_users)
        yield f"{who} {WITHOUT_RESERVATION} on {one.intruded.count} of them", Tone.ALARM
    if one.unreserved.count:
        yield f"{_group_text(one.unreserved, max_users)} {WITHOUT_RESERVATION}", Tone.ALARM
    if one.quarantined:
        yield f"{one.quarantined} quarantined", Tone.ALARM
    if one.unknown:
        yield f"{one.unknown} unknown", Tone.ALARM
    if one.waiting:
        yield f"{one.waiting} waiting", Tone.PLAIN
    if one.notes:
        yield f"({'; '.join(one.notes)})", Tone.PLAIN


class SummarizedNode(Protocol):
    """What the JSON of a summary tells of a node beside its counts; see `NodeStatus`."""

    # ruff: noqa: D102 - documented there
    @property
    def node(self) -> str: ...
    @property
    def scanned_at(self) -> float | None: ...
    @property
    def live(self) -> bool: ...
    @property
    def source(self) -> str | None: ...
    @property
    def fault(self) -> str | None: ...
    @property
    def found_gpus(self) -> int: ...
    @property
    def expected_gpus(self) -> int: ...
    @property
    def reservations_known(self) -> bool: ...
    @property
    def hooks_outage(self) -> HooksOutage | None: ...
    @property
    def partitions(self) -> tuple[str, ...] | None: ...
    @property
    def partitions_at(self) -> float | None: ...


def summary_to_dict(
    generated_at: float,
    nodes: Iterable[tuple[SummarizedNode, NodeSummary]],
    error: str | None = None,
) -> dict[str, Any]:
    """Return the summary for JSON; programs rely on the keys. See `status_to_dict`."""
    return {
        "generated_at": iso_time(generated_at),
        "error": error,
        "nodes": [_node_to_dict(node, one) for node, one in nodes],
    }


def _node_to_dict(status: SummarizedNode, one: NodeSummary) -> dict[str, Any]:
    return {
        "node": status.node,
        "scanned_at": iso_time(status.scanned_at),
        "live": status.live,
        "source": status.source,
        "fault": status.fault,
        "found_gpus": status.found_gpus,
        "expected_gpus": status.expected_gpus or None,
        "reservations_known": status.reservations_known,
        "hooks_outage": outage_to_dict(status.hooks_outage),
        "partitions": None if status.partitions is None else list(status.partitions),
        "partitions_at": iso_time(status.partitions_at),
        "total": one.total,
        "available": one.available,
        "reserved": one.reserved.count,
        "unreserved": one.unreserved.count,
        "quarantined": one.quarantined,
        "unknown": one.unknown,
        "users": list(one.reserved.users),
        "unreserved_users": list(one.unreserved.users),
        "intruded": one.intruded.count,
        "intruders": list(one.intruded.users),
        "waiting": one.waiting,
    }


def _group(gpus: Iterable[GpuStatus], users_of: Callable[[GpuStatus], Iterable[str]]) -> UserGroup:
    found = list(gpus)
    return UserGroup(
        len(found), tuple(dict.fromkeys(user for gpu in found for user in users_of(gpu)))
    )


def _users(processes: Iterable[GpuProcess]) -> list[str]:
    """Return the users of the processes; without a known process, the user is unknown."""
    return [one.user or UNKNOWN_USER for one in processes] or [UNKNOWN_USER]


def _group_text(group: UserGroup, max_users: int | None) -> str:
    return f"{group.count} {_names_text(group.users, max_users)}"


def _names_text(users: tuple[str, ...], max_users: int | None) -> str:
    """Return ``u1,u2``, or ``u1,+3`` where not all are to be named."""
    shown = users if max_users is None else users[:max_users]
    more = len(users) - len(shown)
    if more and not shown:
        return f"of {more} user{'s' if more > 1 else ''}"
    return ",".join((*shown, f"+{more}") if more else shown)
