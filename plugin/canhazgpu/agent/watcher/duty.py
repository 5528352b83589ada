"""What the watcher does for a node, one duty beside another."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol


class Duty(Protocol):
    """Something that is due now and again, until there is no more of it."""

    def run(self) -> float | None:
        """Do what is due; return after how many seconds to do so again, None for never."""


def carry_out(duties: Sequence[Duty], wait: Callable[[float], None] = time.sleep) -> None:
    """Carry out the duties until none of them has anything left to do."""
    while due := [after_s for duty in duties if (after_s := duty.run()) is not None]:
        wait(min(due))
