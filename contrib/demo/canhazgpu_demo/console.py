"""What the demonstration prints, and how it says that something is not as it should be."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

POLL_S = 0.1
Value = TypeVar("Value")


class DemoFailed(Exception):
    """Something the demonstration shows is not what canhazgpu promises; the text says what."""


def heading(text: str) -> None:
    print(f"\n\n=== {text}\n", flush=True)


def say(text: str) -> None:
    print(text, flush=True)


def indented(text: str) -> str:
    return "\n".join(f"    {line}".rstrip() for line in text.splitlines())


def require(holds: bool, what: str, seen: object = "") -> None:
    """Raise with `what` should have been, and what was seen instead."""
    if not holds:
        raise DemoFailed(f"expected {what}" + (f", but saw:\n{seen}" if seen != "" else ""))


def wait_for(what: str, look: Callable[[], Value | None], limit_s: float = 30) -> Value:
    """Look until there is something to return; raise when `limit_s` is over."""
    deadline = time.monotonic() + limit_s
    while (found := look()) is None:
        require(time.monotonic() < deadline, f"{what} within {limit_s:g} s")
        time.sleep(POLL_S)
    return found
