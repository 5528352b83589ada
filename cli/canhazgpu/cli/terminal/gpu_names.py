"""Format GPUs as people name them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from canhazgpu.people.holdings import gpu_list_text


class NodeAnswer(Protocol):
    """An answer about GPUs of one node."""

    @property
    def node(self) -> str:
        """The node's name."""

    @property
    def display_indices(self) -> Mapping[str, str]:
        """The display indices of its GPUs, by UUID."""


def format_gpus(gpus: Iterable[str], answer: NodeAnswer) -> str:
    """Return the GPUs (UUIDs) as people name them, ``GPU 0, 3``."""
    return gpu_list_text(gpus, answer.display_indices)
