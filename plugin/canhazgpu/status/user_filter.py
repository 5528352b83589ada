"""Filter the status of nodes by user; pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from canhazgpu.allocation.coverage import same_user
from canhazgpu.status.node_status import GpuStatus, NodeStatus


@dataclass(frozen=True, slots=True)
class User:
    """A user of this node."""

    uid: int
    user: str


def only_of_user(user: User, nodes: Iterable[NodeStatus]) -> list[NodeStatus]:
    """Return the nodes with only those GPUs and waiters that concern the user.

    A GPU concerns the user who holds or uses it. Nodes without any are left out.
    """
    own = [
        replace(
            node,
            gpus=tuple(gpu for gpu in node.gpus if _concerns_user(gpu, user)),
            queue=tuple(one for one in node.queue if _is_user(user, one.uid, one.user)),
        )
        for node in nodes
    ]
    return [node for node in own if node.gpus or node.queue]


def _concerns_user(gpu: GpuStatus, user: User) -> bool:
    claims = [one.claim for one in gpu.holders]
    if any(_is_user(user, claim.uid, claim.user) for claim in claims):
        return True
    processes = gpu.reading.processes if gpu.reading else ()
    return any(_is_user(user, one.uid, one.user) for one in processes)


def _is_user(user: User, uid: int | None, name: str | None) -> bool:
    return bool(same_user(user.uid, user.user, uid, name))
