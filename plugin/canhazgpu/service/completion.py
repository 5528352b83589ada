"""Shell completion: values that the ledger knows."""

from __future__ import annotations

from enum import Enum

from canhazgpu.frozen_dataclass import dataclass


class Completable(Enum):
    """What can be completed."""

    NODE = "node"
    GPU = "gpu"
    """A GPU of this node."""
    OWN_GPU = "own gpu"
    """A GPU of this node that the caller has reserved."""
    USER = "user"
    """Somebody who holds, uses or waits for a GPU."""
    PARTITION = "partition"
    """A partition of the scheduler that a node has published."""
    MODEL = "model"
    """A model that runs on a GPU, as the table shortens its name."""


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """The kind of value to complete; Redis may take up to `timeout_s` seconds to answer."""

    what: Completable
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Completion:
    """One value: a name, or a GPU's UUID.

    `index` is "" for a name, and for a GPU that shares its index with others (a MIG instance).
    `model` is "" where it is not known.
    """

    text: str
    index: str = ""
    model: str = ""
