"""TCP ports nobody listens on."""

from __future__ import annotations

import random
import socket

LOWEST_PORT = 20000
HIGHEST_PORT = 32000
"""Below Linux's range for outgoing connections, which begins at 32768."""


def free_ports(count: int) -> tuple[int, ...]:
    """Pick `count` different ports at random and hold each for a moment to see that it is free."""
    candidates = random.sample(range(LOWEST_PORT, HIGHEST_PORT), k=HIGHEST_PORT - LOWEST_PORT)
    found: list[int] = []
    for port in candidates:
        if len(found) == count:
            break
        if _is_free(port):
            found.append(port)
    return tuple(found)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
