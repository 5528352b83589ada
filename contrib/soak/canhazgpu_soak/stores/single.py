"""The store as one Redis."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from canhazgpu_soak.clock import SteppedClock
from canhazgpu_soak.stores import port
from canhazgpu_soak.stores.port import Struck
from canhazgpu_soak.stores.server import Server

RESERVATIONS = "canhazgpu:{{{node}}}:reservations"


class SingleStore:
    """Only root reaches it."""

    settings = ""

    def __init__(self, root: Path, clock: SteppedClock) -> None:
        self._copy = root / "copy"
        self._clock = clock
        self._server = Server(root / "redis", environ=clock.environ)
        self.url = f"unix://{self._server.root}/redis.sock"

    @property
    def faults(self) -> dict[str, Callable[[], Struck]]:
        """Return what makes each kind of fault."""
        return {
            port.KILLED: self._server.kill,
            port.STOPPED: self._server.stop,
            port.FLUSHED: self._server.flush,
            port.FULL: self._server.fill,
            port.REPLICA: self._server.make_replica,
            port.PUT_BACK: lambda: self._server.put_back(self._copy),
        }

    def start(self) -> None:
        """Start it, if it does not run."""
        self._server.start()

    def close(self) -> None:
        """End it."""
        self._server.end()

    def keep_copy(self) -> None:
        """Keep a copy of its data."""
        self._server.copy_to(self._copy)

    def forget_reservations(self, node: str) -> bool:
        """Remove the node's reservations."""
        return self._server.command("DEL", RESERVATIONS.format(node=node)) == "1"

    def set_clock(self, step_s: float) -> bool:
        """Let its clock differ by so much."""
        return self._clock.step(step_s, self._server.time_s)
