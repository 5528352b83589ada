"""What of a node concerns one person; pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from canhazgpu.status.coverage import same_user
from canhazgpu.status.node_status import GpuStatus, NodeStatus


@dataclass(frozen=True, slots=True)
class User:
    """A user of this node."""

    uid: int
    user: str


def only_of_user(person: User, nodes: Iterable[NodeStatus]) -> list[NodeStatus]:
    """Return the nodes on which the person holds, uses or awaits GPUs, with nothing else."""
    own = [
        replace(
            node,
            gpus=tuple(gpu for gpu in node.gpus if _concerns_user(gpu, person)),
            queue=tuple(one for one in node.queue if _is_user(person, one.uid, one.user)),
        )
        for node in nodes
    ]
    return [node for node in own if node.gpus or node.queue]


def _concerns_user(gpu: GpuStatus, person: User) -> bool:
    claim = gpu.reservation.claim if gpu.reservation else None
    if claim is not None and _is_user(person, claim.uid, claim.user):
        return True
    processes = gpu.reading.processes if gpu.reading else ()
    return any(_is_user(person, one.uid, one.user) for one in processes)


def _is_user(person: User, uid: int | None, user: str | None) -> bool:
    return bool(same_user(person.uid, person.user, uid, user))
