"""Filter the status by state, user, partition and model; pure.

Several values of one kind are alternatives. Values of several kinds must all be met.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.gpu.ml_model.short_name import short_model_name
from canhazgpu.gpu.usage import GpuState
from canhazgpu.status.node_status import GpuStatus, NodeStatus
from canhazgpu.status.table_cells import MODEL_WIDTH
from canhazgpu.status.user_filter import User, concerns_user, is_waiter


@dataclass(frozen=True, slots=True)
class StatusFilter:
    """What is shown; an empty field excludes nothing.

    `states`, `users` and `models` choose GPUs: a user's are those that the user holds or uses.
    `partitions` chooses nodes. A model is a part of the name of a model that runs on the GPU, or
    of the GPU's own product name, in any case.
    """

    states: frozenset[GpuState] = frozenset()
    users: tuple[User, ...] = ()
    partitions: frozenset[str] = frozenset()
    models: tuple[str, ...] = ()

    @property
    def selects_gpus(self) -> bool:
        """Whether it chooses some GPUs of a node, and not only nodes."""
        return bool(self.states or self.users or self.models)

    @property
    def is_told_by_counts(self) -> bool:
        """Whether the counts of a node's GPUs may tell that nothing is shown.

        Whether anybody knows a user whom this machine does not know, all nodes tell.
        """
        is_counted = bool(self.states or self.partitions or self.models)
        return is_counted and all(one.uid is not None for one in self.users)

    def apply(self, nodes: Iterable[NodeStatus]) -> list[NodeStatus]:
        """Return the nodes, each with the GPUs to show; those with nothing to show are left out.

        With `users` a node's queue has only their requests, and these alone are something to show,
        unless states or models are chosen: who waits has neither.
        """
        chosen = [node for node in nodes if self._has_partition(node)]
        if not self.selects_gpus:
            return chosen
        shown = map(self._filtered, chosen)
        may_only_wait = bool(self.users) and not self.states and not self.models
        return [node for node in shown if node.gpus or (may_only_wait and node.queue)]

    def _has_partition(self, node: NodeStatus) -> bool:
        return not self.partitions or not self.partitions.isdisjoint(node.partitions or ())

    def _filtered(self, node: NodeStatus) -> NodeStatus:
        shown = tuple(gpu for gpu in node.gpus if self._selects(gpu))
        # A large node is filtered at every redraw: found by identity, not compared one by one.
        kept = {id(gpu) for gpu in shown}
        queue = tuple(
            one
            for one in node.queue
            if not self.users or any(is_waiter(u, one) for u in self.users)
        )
        left_out = tuple(gpu for gpu in node.gpus if id(gpu) not in kept)
        return replace(node, gpus=shown, queue=queue, filtered_out=(*node.filtered_out, *left_out))

    def _selects(self, gpu: GpuStatus) -> bool:
        return (
            (not self.states or gpu.state in self.states)
            and (not self.users or any(concerns_user(user, gpu) for user in self.users))
            and (not self.models or any(has_model(gpu, text) for text in self.models))
        )


def has_model(gpu: GpuStatus, text: str) -> bool:
    """Tell whether a model on the GPU, or the GPU's product, has the text in its name.

    The model's name counts as a whole, and as the table shortens it.
    """
    product = gpu.reading.name if gpu.reading else ""
    return names_a_model(gpu.models, product, (text,))


def names_a_model(models: Sequence[str], product: str, texts: Iterable[str]) -> bool:
    """Tell the same of these models on a GPU and its product, "" for none, and any of the texts."""
    names = [*models, *(short_model_name(one, MODEL_WIDTH) for one in models)]
    if product:
        names.append(product)
    return any(_is_in_one(text, names) for text in texts)


def has_named_model(names: Iterable[str], texts: Iterable[str]) -> bool:
    """Tell whether GPUs with these names of products and models may have one of the models."""
    told = [other for one in names for other in (one, short_model_name(one, MODEL_WIDTH))]
    return any(_is_in_one(text, told) for text in texts)


def _is_in_one(text: str, names: Iterable[str]) -> bool:
    wanted = text.casefold()
    return any(wanted in name.casefold() for name in names)
