"""What the keys of a terminal mean while the status is watched; pure."""

from __future__ import annotations

import re
from enum import Enum


class Key(Enum):
    """What a key does."""

    UP = "up"
    DOWN = "down"
    PAGE_UP = "page up"
    PAGE_DOWN = "page down"
    FIRST = "first"
    LAST = "last"
    LAYOUT = "layout"
    REDRAW = "redraw"
    QUIT = "quit"


_KEYS = {
    "\x1b[A": Key.UP,
    "\x1bOA": Key.UP,
    "k": Key.UP,
    "\x1b[B": Key.DOWN,
    "\x1bOB": Key.DOWN,
    "j": Key.DOWN,
    "\r": Key.DOWN,
    "\n": Key.DOWN,
    "\x1b[5~": Key.PAGE_UP,
    "b": Key.PAGE_UP,
    "\x1b[6~": Key.PAGE_DOWN,
    " ": Key.PAGE_DOWN,
    "f": Key.PAGE_DOWN,
    "\x1b[H": Key.FIRST,
    "\x1bOH": Key.FIRST,
    "\x1b[1~": Key.FIRST,
    "\x1b[7~": Key.FIRST,
    "g": Key.FIRST,
    "\x1b[F": Key.LAST,
    "\x1bOF": Key.LAST,
    "\x1b[4~": Key.LAST,
    "\x1b[8~": Key.LAST,
    "G": Key.LAST,
    "s": Key.LAYOUT,
    "\x0c": Key.REDRAW,
    "q": Key.QUIT,
    "Q": Key.QUIT,
}
"""By what terminals send (https://invisible-island.net/xterm/ctlseqs/ctlseqs.html, PC-style
function keys, with the variants of the Linux console and rxvt) and by the letters of less(1)."""

_SEQUENCE = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1bO[ -~]"
    r"|\x1b[\[O][ -?]*(?=[^ -~])"  # broken off
    r"|\x1b(?![\[O])|[^\x1b]",
    re.DOTALL,
)
_MAX_SEQUENCE = 32
"""Characters; a sequence that is longer is none."""


class KeyDecoder:
    """Finds the keys in what a terminal sends, piece by piece."""

    def __init__(self) -> None:
        self._rest = ""

    def keys(self, data: bytes) -> list[Key]:
        """Return the keys that end in this piece; what means nothing is left out."""
        text = self._rest + data.decode("latin-1")
        found, position = [], 0
        while match := _SEQUENCE.match(text, position):
            # A lone escape may be the beginning of a sequence whose rest is to come.
            if match[0] == "\x1b" and match.end() == len(text):
                break
            position = match.end()
            if match[0] in _KEYS:
                found.append(_KEYS[match[0]])
        self._rest = text[position:] if len(text) - position <= _MAX_SEQUENCE else ""
        return found
