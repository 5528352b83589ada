"""What the soak wants of a store, whichever it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

KILLED, STOPPED, FLUSHED = "store killed", "store stopped", "store flushed"
FULL, REPLICA = "store out of memory", "store made a replica"
PUT_BACK, FAILED_OVER = "store put back", "store failed over"
CLOCK_STEPPED = "store's clock stepped"

Undo = Callable[[], object]
Struck = Undo | None
"""How a fault that struck is undone; None where it did not strike, and nothing is to be undone."""


def nothing_to_undo() -> None:
    """Undo a fault that is over by itself."""


class SoakStore(Protocol):
    """A store that has faults. Each method that makes one looks whether it is there."""

    @property
    def url(self) -> str:
        """What `store.url` names."""
        ...

    @property
    def settings(self) -> str:
        """Further lines of the section `store` of the configuration."""
        ...

    @property
    def faults(self) -> dict[str, Callable[[], Struck]]:
        """Return what makes each kind of fault that this store can have."""
        ...

    def start(self) -> None:
        """Start all of it that does not run, and return when it answers."""
        ...

    def close(self) -> None:
        """End all of it."""
        ...

    def keep_copy(self) -> None:
        """Keep a copy of its data, to be put back later."""
        ...

    def forget_reservations(self, node: str) -> bool:
        """Remove what it knows of who holds the node's GPUs; false where it knew nothing."""
        ...

    def set_clock(self, step_s: float) -> bool:
        """Let its server's clock differ by so much from now on; false where that is not seen."""
        ...
