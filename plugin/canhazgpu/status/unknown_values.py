"""Refuse a filter with a value that nothing can have, and suggest the right one; pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from canhazgpu.errors import InputError, UnknownNameError
from canhazgpu.gpu.ml_model.short_name import short_model_name
from canhazgpu.status.heads.counts import CountedNode
from canhazgpu.status.node_status import NodeStatus
from canhazgpu.status.status_filter import StatusFilter, has_model, has_named_model
from canhazgpu.status.suggestion import suggestion

NO_PARTITIONS = (
    "no node has published its Slurm partitions; the health check publishes them, from slurm.conf:"
    " run 'canhazgpu-healthcheck' as root on the nodes, or set it as HealthCheckProgram"
)


class WithPartitions(Protocol):
    """A node of which no more is needed than its partitions."""

    @property
    def partitions(self) -> tuple[str, ...] | None:
        """The partitions that it published, None where it never did."""
        ...


def refuse_unknown_values(
    chosen: StatusFilter,
    nodes: Iterable[NodeStatus],
    passed_over: Iterable[WithPartitions] = (),
) -> None:
    """Raise `UnknownNameError` for a partition that no node has, or a user whom nobody knows.

    Raises `InputError` where nodes have no partitions at all. A user whom this machine knows is
    none of these, and a model may run at other times.
    """
    known = KnownValues(chosen)
    known.add(nodes, passed_over)
    known.refuse_unknown()


class KnownValues:
    """What nodes have of what a filter names, for nodes that are not all in memory at once."""

    def __init__(self, chosen: StatusFilter) -> None:
        self._chosen = chosen
        self._asks_users = any(user.uid is None for user in chosen.users)
        self._partitions: set[str] = set()
        self._users: set[str] = set()

    def add(self, nodes: Iterable[NodeStatus], passed_over: Iterable[WithPartitions] = ()) -> None:
        """Note what these nodes have."""
        some = tuple(nodes)
        if self._chosen.partitions:
            self._partitions |= known_partitions((*some, *passed_over))
        if self._asks_users:
            self._users |= known_users(some)

    def refuse_unknown(self) -> None:
        """Raise `InputError` for what no node had, as `refuse_unknown_values`."""
        if self._chosen.partitions:
            if not self._partitions:
                raise InputError(NO_PARTITIONS)
            for name in sorted(self._chosen.partitions - self._partitions):
                hint = suggestion(name, self._partitions)
                raise UnknownNameError(
                    f"no node has published a partition {name!r}; {hint}",
                    kind="partition",
                    known=self._partitions,
                )
        for user in self._chosen.users:
            if user.uid is None and user.user not in self._users:
                hint = suggestion(user.user, self._users) or "nobody holds, uses or awaits a GPU"
                raise UnknownNameError(
                    f"there is no user {user.user!r} here or on the nodes shown; {hint}",
                    kind="user",
                    known=self._users,
                )


def models_hint(
    wanted: Iterable[str], nodes: Sequence[NodeStatus], passed_over: Iterable[object] = ()
) -> str:
    """Return a suggestion for the first of these models that no GPU has, empty for none.

    Nothing is suggested where one was passed over whose models are not known.
    """
    gpus = [gpu for node in nodes for gpu in node.all_gpus]
    products: set[str] = set()
    models: set[str] = set()
    for one in passed_over:
        if not isinstance(one, CountedNode) or not one.names_models:
            return ""
        products.update(one.products or ())
        models.update(one.models or ())
    others = products | models
    shown = known_models(nodes) | products | set(map(short_model_name, models))
    for text in wanted:
        if not any(has_model(gpu, text) for gpu in gpus) and not has_named_model(others, (text,)):
            hint = suggestion(text, shown)
            return f"; {hint}" if hint else ""
    return ""


def known_partitions(nodes: Iterable[WithPartitions]) -> set[str]:
    """Return every partition that a node has published."""
    return {name for node in nodes for name in node.partitions or ()}


def known_users(nodes: Iterable[NodeStatus]) -> set[str]:
    """Return the users who hold, use or wait for GPUs."""
    found: set[str | None] = set()
    for node in nodes:
        found.update(one.user for one in node.queue)
        for gpu in node.all_gpus:
            found.update(one.claim.user for one in gpu.holders)
            processes = gpu.reading.processes if gpu.reading else ()
            found.update(one.user for one in processes)
    return {user for user in found if user}


def known_models(nodes: Iterable[NodeStatus]) -> set[str]:
    """Return the models that run on GPUs, as the table shortens them, and the GPUs' products."""
    gpus = [gpu for node in nodes for gpu in node.all_gpus]
    running = {short_model_name(model) for gpu in gpus for model in gpu.models}
    return running | {gpu.reading.name for gpu in gpus if gpu.reading and gpu.reading.name}
