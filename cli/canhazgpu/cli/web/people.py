"""Who holds, uses and wastes GPUs, of a status and a report together; pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from canhazgpu.gpu.usage import GpuState
from canhazgpu.status.json_format import iso_time

if TYPE_CHECKING:
    from canhazgpu.report.totals import Report
    from canhazgpu.report.usage_sum import UsageTotals
    from canhazgpu.status.node_status import NodeStatus


@dataclass(slots=True)
class Person:
    """What a user has now, and had in the days of the report.

    `held` counts GPUs by the type of their reservations, `unreserved` those used without one,
    `intruded` those of others. `used` is None for a user whom the report does not know.
    """

    user: str
    held: dict[str, int] = field(default_factory=dict)
    unreserved: int = 0
    intruded: int = 0
    waiting: int = 0
    nodes: set[str] = field(default_factory=set)
    used: UsageTotals | None = None

    @property
    def held_count(self) -> int:
        """The number of GPUs, or shares of them, that the user holds."""
        return sum(self.held.values())

    @property
    def gpu_hours(self) -> float:
        """The GPU hours of the report."""
        return self.used.gpu_hours if self.used else 0.0

    @property
    def idle_hours(self) -> float:
        """Of these, those without any use."""
        return self.used.idle_hours if self.used else 0.0

    @property
    def idle_share(self) -> float:
        """The idle part of the GPU hours, from 0 to 1."""
        return self.idle_hours / self.gpu_hours if self.gpu_hours else 0.0

    @property
    def mean_utilization(self) -> float | None:
        """For how much of the time the user's GPUs computed, None where nothing tells it."""
        return self.used.mean_utilization if self.used else None

    @property
    def peak_memory_share(self) -> float | None:
        """How much of the GPUs' memory was in use at the most, as `mean_utilization`."""
        return self.used.peak_memory_share if self.used else None


def people_of(nodes: Iterable[NodeStatus], report: Report | None) -> list[Person]:
    """Return everybody, those first who hold most."""
    found: dict[str, Person] = {}

    def person(user: str) -> Person:
        return found.setdefault(user, Person(user))

    for node in nodes:
        for waiter in node.queue:
            person(waiter.user).waiting += 1
        for gpu in node.gpus:
            for one in gpu.holders:
                holder = person(one.claim.user)
                holder.held[one.claim.type] = holder.held.get(one.claim.type, 0) + 1
                holder.nodes.add(node.node)
            if gpu.state is GpuState.UNRESERVED:
                for user in {one.user or "unknown" for one in gpu.processes}:
                    person(user).unreserved += 1
                    person(user).nodes.add(node.node)
            for user in {one.user or "unknown" for one in gpu.intruders}:
                person(user).intruded += 1
                person(user).nodes.add(node.node)
    for user, used in report.by_user.items() if report else ():
        person(user).used = used
    return sorted(found.values(), key=lambda one: (-one.held_count, -one.gpu_hours, one.user))


def people_to_dict(
    generated_at: float | None, people: Iterable[Person], days: int, error: str | None
) -> dict[str, Any]:
    """Return the people for JSON; programs rely on the keys."""
    return {
        "generated_at": iso_time(generated_at),
        "error": error,
        "days": days,
        "users": [
            {
                "user": one.user,
                "held": one.held_count,
                "held_by_type": dict(sorted(one.held.items())),
                "unreserved": one.unreserved,
                "intruded": one.intruded,
                "waiting": one.waiting,
                "nodes": sorted(one.nodes),
                "gpu_hours": round(one.gpu_hours, 4),
                "idle_hours": round(one.idle_hours, 4),
                "mean_utilization": _rounded(one.mean_utilization),
                "peak_memory_share": _rounded(one.peak_memory_share),
            }
            for one in people
        ],
    }


def _rounded(share: float | None) -> float | None:
    return None if share is None else round(share, 4)
