"""What shows somebody who waits what for."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Shows somebody who waits what for."""

    def show(self, text: str, steady: str) -> None:
        """Show what is waited for now.

        `steady` is the text without what merely passes: the same again is no news.
        """
        ...

    def done(self) -> None:
        """Leave the terminal as it was: the waiting is over."""
        ...
