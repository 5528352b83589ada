"""What the shell completes: names of nodes, and GPUs of this node."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Completable(Enum):
    """What can be completed."""

    NODE = "node"
    GPU = "gpu"
    """A GPU of this node."""
    OWN_GPU = "own gpu"
    """A GPU of this node that the caller has reserved."""


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """What is completed, and how long the store may take."""

    what: Completable
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Completion:
    """A node's name, or a GPU's UUID with its index where that is its alone, and its model."""

    text: str
    index: str = ""
    model: str = ""
