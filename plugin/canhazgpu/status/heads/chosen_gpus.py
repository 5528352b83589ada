"""Which GPUs of plain nodes a filter chooses, by their states and models; pure."""

from __future__ import annotations

from collections.abc import Sequence

from canhazgpu.gpu.usage import GpuState
from canhazgpu.status.status_filter import StatusFilter, names_a_model


class ChosenGpus:
    """The filter's choice; a plain node's GPUs are available or reserved. None chooses all."""

    def __init__(self, chosen: StatusFilter | None) -> None:
        chosen = chosen or StatusFilter()
        self.are_all = not (chosen.states or chosen.models)
        self._has_free = not chosen.states or GpuState.AVAILABLE in chosen.states
        self._has_held = not chosen.states or GpuState.RESERVED in chosen.states
        self._models = chosen.models
        self._known: dict[tuple[str, tuple[str, ...]], bool] = {}

    def has_free(self, product: str) -> bool:
        """Return whether a free GPU of this product is chosen."""
        return self._has_free and (not self._models or self._names_model(product, ()))

    def has_held(self, product: str, processes: Sequence[Sequence[str | None]]) -> bool:
        """Return whether a held GPU is, on which these processes of the head are."""
        if not self._has_held or not self._models:
            return self._has_held
        return self._names_model(product, tuple(one[5] for one in processes if one[5]))

    def _names_model(self, product: str, models: tuple[str, ...]) -> bool:
        known = self._known.get((product, models))
        if known is None:
            known = names_a_model(models, product, self._models)
            self._known[product, models] = known
        return known
