"""What a command writes, on its way to its caller: messages, because root has none of its files."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

MAX_CHARACTERS = 32 * 1024
"""Of one message."""


class CommandOutput(io.TextIOBase):
    """A text stream whose lines `send` sends; `is_terminal` is what the caller's own stream is."""

    def __init__(self, send: Callable[[str], None], *, is_terminal: bool) -> None:
        self._send = send
        self._is_terminal = is_terminal
        self._unsent: list[str] = []

    @property
    def buffer(self) -> io.RawIOBase:
        """The stream for who writes the bytes of a text in UTF-8."""
        return _Bytes(self)

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Any character can be written: the caller knows which its terminal has."""
        return "utf-8"

    def isatty(self) -> bool:
        """See `io.IOBase.isatty`."""
        return self._is_terminal

    def writable(self) -> bool:
        """See `io.IOBase.writable`."""
        return True

    def write(self, text: str) -> int:
        """Keep the text until the next `flush`."""
        if not isinstance(text, str):
            # Libraries find out so that this is a stream of text.
            raise TypeError(f"a text stream takes no {type(text).__name__}")
        self._unsent.append(text)
        return len(text)

    def flush(self) -> None:
        """Send what was written; raises `OSError` where nobody takes it any more."""
        text, self._unsent = "".join(self._unsent), []
        for start in range(0, len(text), MAX_CHARACTERS):
            self._send(text[start : start + MAX_CHARACTERS])


class _Bytes(io.RawIOBase):
    """Takes the bytes of a text."""

    def __init__(self, output: CommandOutput) -> None:
        super().__init__()
        self._output = output

    def writable(self) -> bool:
        return True

    def write(self, content: ReadableBuffer) -> int:
        text = bytes(content).decode("utf-8", "replace")
        self._output.write(text)
        return len(bytes(content))

    def flush(self) -> None:
        if not self.closed:
            self._output.flush()
