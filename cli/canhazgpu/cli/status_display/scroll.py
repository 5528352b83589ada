"""Which lines of a text a page shows; pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from canhazgpu.cli.status_display.keys import Key


@dataclass(frozen=True, slots=True)
class Page:
    """A page of `height` lines on a text of `length` lines, `offset` lines below its beginning."""

    length: int
    height: int
    offset: int = 0

    @property
    def last_offset(self) -> int:
        """The offset at which the page ends with the text."""
        return max(self.length - self.height, 0)

    @property
    def above(self) -> int:
        """The number of lines above the page."""
        return min(max(self.offset, 0), self.last_offset)

    @property
    def below(self) -> int:
        """The number of lines below the page."""
        return max(self.length - self.height - self.above, 0)

    def after(self, key: Key) -> Page:
        """Return the page after a key; a page key keeps one line in sight."""
        step = max(self.height - 1, 1)
        offsets = {
            Key.UP: self.above - 1,
            Key.DOWN: self.above + 1,
            Key.PAGE_UP: self.above - step,
            Key.PAGE_DOWN: self.above + step,
            Key.FIRST: 0,
            Key.LAST: self.last_offset,
        }
        moved = replace(self, offset=offsets.get(key, self.above))
        return replace(moved, offset=moved.above)
