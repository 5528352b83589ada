"""A terminal's whole screen, on which a text is shown, redrawn and scrolled."""

from __future__ import annotations

import select
import shutil
import time
from collections.abc import Callable, Sequence

from canhazgpu.cli.status_display.keys import Key, KeyDecoder
from canhazgpu.cli.status_display.scroll import Page
from canhazgpu.cli.status_display.terminal_mode import TerminalMode, write_unbuffered
from canhazgpu.cli.status_display.watch import QuitWatchError, Size

CURSOR_HOME, CLEAR_LINE, CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"

TITLE_LINES = 2
"""The lines above the text: the title and a blank one."""
READ_BYTES = 1024


class Screen:
    """What is shown on the screen, and which part of it.

    `mode` is the terminal's, in which it must be. `toggle_layout` is called for the key that
    changes the layout, before the screen is redrawn.
    """

    def __init__(self, mode: TerminalMode, toggle_layout: Callable[[], None]) -> None:
        self._mode = mode
        self._toggle_layout = toggle_layout
        self._title = ""
        self._render: Callable[[Size], Sequence[str]] = lambda _: ()
        self._rendered: tuple[Size, Sequence[str]] | None = None
        self._offset = 0
        self._decoder = KeyDecoder()

    def show(self, title: str, render: Callable[[Size], Sequence[str]]) -> None:
        """Show a title, and below it what `render` returns for the room that is left.

        It is drawn now, and again after each change of the terminal's size.
        """
        self._title, self._render, self._rendered = title, render, None
        self._draw()

    def wait(self, seconds: float) -> None:
        """Wait; meanwhile obey keys, and redraw when the terminal's size changes.

        Raises `QuitWatchError`.
        """
        deadline = time.monotonic() + seconds
        while True:
            left_s = max(deadline - time.monotonic(), 0.0)
            ready = self._poll(left_s)
            if self._mode.keyboard in ready:
                self._read_keys()
            if self._mode.wakeup in ready:
                self._mode.clear_wakeup()
                self._draw()
            if not ready and not left_s:
                return

    def _draw(self) -> None:
        page, lines = self._page()
        shown = list(lines[page.above : page.above + page.height])
        if page.last_offset:
            shown.append(_position_text(page, reads_keys=self._mode.keyboard is not None))
        text = [self._title, "", *shown]
        drawn = "\r\n".join(f"{line}{CLEAR_LINE}" for line in text)
        try:
            write_unbuffered(f"{CURSOR_HOME}{drawn}{CLEAR_BELOW}")
        except OSError as exc:
            raise QuitWatchError from exc  # the terminal is gone

    def _page(self) -> tuple[Page, Sequence[str]]:
        columns, height = shutil.get_terminal_size()
        height = max(height - TITLE_LINES, 1)
        size = Size(columns, height)
        if self._rendered is None or self._rendered[0] != size:
            self._rendered = size, self._render(size)
        lines = self._rendered[1]
        if len(lines) > height:
            height = max(height - 1, 1)  # the last line says how many there are more
        page = Page(len(lines), height, self._offset)
        self._offset = page.above
        return page, lines

    def _poll(self, seconds: float) -> set[int]:
        # Not select.select: it refuses descriptors from 1024 up.
        poll = select.poll()
        for descriptor in (self._mode.wakeup, self._mode.keyboard):
            if descriptor is not None:
                poll.register(descriptor, select.POLLIN)
        return {descriptor for descriptor, _ in poll.poll(seconds * 1000)}

    def _read_keys(self) -> None:
        data = self._mode.read_keyboard(READ_BYTES)
        for key in self._decoder.keys(data):
            if key is Key.QUIT:
                raise QuitWatchError
            if key is Key.LAYOUT:
                self._toggle_layout()
                self._rendered, self._offset = None, 0
            else:
                self._offset = self._page()[0].after(key).offset
        self._draw()


def _position_text(page: Page, *, reads_keys: bool) -> str:
    parts = [f"{page.above} lines above"] if page.above else []
    parts += [f"{page.below} more lines"] if page.below else []
    return f"({', '.join(parts)})" + (
        "  arrows, page keys; s: other layout; q" if reads_keys else ""
    )
