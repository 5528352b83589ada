"""The indexes of the store: compare them with the nodes' own records, repair and trim them."""

from __future__ import annotations

from enum import Enum

from canhazgpu.frozen_dataclass import dataclass


class IndexTask(Enum):
    """What is to be done with the indexes."""

    CHECK = "check"
    REPAIR = "repair"
    TRIM = "trim"


@dataclass(frozen=True, slots=True)
class IndexRequest:
    """A task for these nodes; for all if none is named. Only all together are trimmed."""

    task: IndexTask
    nodes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class IndexFinding:
    """What differs: `where` is a node or a key of the store, `detail` says what it is."""

    where: str
    detail: str
    repaired: bool = False


@dataclass(frozen=True, slots=True)
class IndexAnswer:
    """What was found and done.

    `unmarked` are nodes whose entries do not count as complete: questions read them in full until
    their next health check, or a repair. `removed_keys` and `removed_members` were old, or no
    entries.
    """

    task: IndexTask
    nodes: int = 0
    findings: tuple[IndexFinding, ...] = ()
    unmarked: tuple[str, ...] = ()
    removed_keys: int = 0
    removed_members: int = 0

    @property
    def is_good(self) -> bool:
        """Whether nothing differs any more."""
        return all(one.repaired for one in self.findings)
