"""The display of a wait: a port that the terminal implements."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Shows to a waiting user what the wait is for."""

    def show(self, text: str, steady: str) -> None:
        """Show what the wait is for now.

        `steady` is the text without the parts that change with time alone. Where it is the same
        as before, nothing new is to be reported.
        """
        ...

    def done(self) -> None:
        """End the display: the wait is over."""
        ...


class _NoProgress:
    """Shows nothing."""

    def show(self, text: str, steady: str) -> None:
        """See `Progress.show`."""

    def done(self) -> None:
        """See `Progress.done`."""


NO_PROGRESS: Progress = _NoProgress()
"""For a request that nobody watches."""
