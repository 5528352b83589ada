"""Frame the agent's messages: JSON objects, each ended by NUL (https://varlink.org/Service)."""

from __future__ import annotations

import json
from typing import Any

MAX_MESSAGE_BYTES = 256 * 1024
"""The longest message that is accepted, its end included. A hook's environment has a few KiB."""
END = b"\0"

Message = dict[str, Any]


class WireError(Exception):
    """What arrived is no message of this interface; the text says why."""


def encode(message: Message) -> bytes:
    """Return the message with its end; ASCII, so that any bytes of an environment survive."""
    return json.dumps(message, separators=(",", ":")).encode("ascii") + END


def decode(frame: bytes) -> Message:
    """Return the message of a frame without its end; raises `WireError`."""
    try:
        message = json.loads(frame)
    except (ValueError, RecursionError) as exc:
        raise WireError("a message is not JSON") from exc
    if not isinstance(message, dict):
        raise WireError("a message is no JSON object")
    return message


class Inbox:
    """Collects what a peer sends until a message is complete."""

    def __init__(self, received: bytes = b"", max_bytes: int = MAX_MESSAGE_BYTES) -> None:
        """Take what has arrived already, and the longest message that is accepted."""
        self._received = bytearray(received)
        self._max_bytes = max_bytes

    @property
    def rest(self) -> bytes:
        """What arrived after the messages that were taken."""
        return bytes(self._received)

    def add(self, chunk: bytes) -> None:
        """Take bytes as they arrive; raises `WireError` where a message gets too long."""
        self._received += chunk
        first_end = self._received.find(END)
        if (len(self._received) if first_end < 0 else first_end) >= self._max_bytes:
            raise WireError(f"a message has {self._max_bytes} bytes at most")

    def take(self) -> bytes | None:
        """Return the next frame without its end, None while it is incomplete."""
        frame, end, rest = self._received.partition(END)
        if not end:
            return None
        self._received = rest
        return bytes(frame)
