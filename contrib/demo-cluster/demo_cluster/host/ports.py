"""TCP ports nobody listens on."""

from __future__ import annotations

import random
import socket

LOWEST_PORT = 20000
HIGHEST_PORT = 32000
"""Below Linux's range for outgoing connections, which begins at 32768."""


class ClaimedPorts:
    """Ports that are free and that no other cluster of this host takes until `release`.

    A daemon that has not started yet, or is restarted, does not hold its port. The claim is an
    abstract Unix socket named after the port, which ends with this process at the latest.
    """

    def __init__(self, count: int) -> None:
        self.numbers: list[int] = []
        self._claims: list[socket.socket] = []
        every = range(LOWEST_PORT, HIGHEST_PORT)
        for port in random.sample(every, k=len(every)):
            if len(self.numbers) == count:
                break
            self._take(port)

    def release(self) -> None:
        while self._claims:
            self._claims.pop().close()

    def _take(self, port: int) -> None:
        claim = socket.socket(socket.AF_UNIX)
        if _can_bind(claim, f"\0demo-cluster-port-{port}") and _is_free(port):
            self.numbers.append(port)
            self._claims.append(claim)
        else:
            claim.close()


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return _can_bind(probe, ("", port))


def _can_bind(one: socket.socket, address: str | tuple[str, int]) -> bool:
    try:
        one.bind(address)
    except OSError:
        return False
    return True
