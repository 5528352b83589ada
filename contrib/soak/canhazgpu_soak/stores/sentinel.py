"""The store as two Redis, of which three sentinels make one the primary."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from canhazgpu_soak.clock import SteppedClock
from canhazgpu_soak.stores import port
from canhazgpu_soak.stores.port import Struck, nothing_to_undo
from canhazgpu_soak.stores.server import PERSISTENT, Server
from demo_cluster.host.ports import ClaimedPorts

SERVICE = "soak"
FAILOVER_LIMIT_S = 30.0
SENTINEL = """\
sentinel monitor {service} 127.0.0.1 {port} 2
sentinel down-after-milliseconds {service} 3000
sentinel failover-timeout {service} 10000
"""


class SentinelStore:
    """All of it listens on 127.0.0.1. Faults strike who is the primary at that moment."""

    settings = ""

    def __init__(self, root: Path, clock: SteppedClock) -> None:
        self._copy = root / "copy"
        self._clock = clock
        self._ports = ClaimedPorts(5)
        first, second, *others = self._ports.numbers
        replica = f"{PERSISTENT}replicaof 127.0.0.1 {first}\n"
        self._servers = {
            first: Server(root / "redis1", first, environ=clock.environ),
            second: Server(root / "redis2", second, replica, environ=clock.environ),
        }
        watches = SENTINEL.format(service=SERVICE, port=first)
        self._sentinels = [
            Server(root / f"sentinel{number}", one, watches, ("--sentinel",))
            for number, one in enumerate(others, 1)
        ]
        hosts = ",".join(f"127.0.0.1:{one}" for one in others)
        self.url = f"redis+sentinel://{hosts}/{SERVICE}"

    @property
    def faults(self) -> dict[str, Callable[[], Struck]]:
        """Return what makes each kind of fault."""
        return {
            port.KILLED: lambda: self._primary().kill(),
            port.STOPPED: lambda: self._primary().stop(),
            port.FLUSHED: lambda: self._primary().flush(),
            port.FULL: lambda: self._primary().fill(),
            port.REPLICA: self._make_replica,
            port.PUT_BACK: self._put_back,
            port.FAILED_OVER: self._fail_over,
        }

    def start(self) -> None:
        """Start all that does not run."""
        for one in [*self._servers.values(), *self._sentinels]:
            one.start()

    def close(self) -> None:
        """End all of it."""
        for one in [*self._servers.values(), *self._sentinels]:
            one.end()
        self._ports.release()

    def keep_copy(self) -> None:
        """Keep a copy of the primary's data."""
        self._primary().copy_to(self._copy)

    def forget_reservations(self, _node: str) -> bool:
        """Say that it is not done here."""
        return False

    def set_clock(self, step_s: float) -> bool:
        """Let the clock of both servers differ by so much."""
        return self._clock.step(step_s, lambda: self._primary().time_s())

    def _primary(self) -> Server:
        """Return whom the sentinels call the primary; the first server where none answers."""
        for one in self._sentinels:
            answer = one.command("SENTINEL", "get-master-addr-by-name", SERVICE).split()
            if len(answer) == 2 and answer[1].isdecimal() and int(answer[1]) in self._servers:
                return self._servers[int(answer[1])]
        return next(iter(self._servers.values()))

    def _make_replica(self) -> Struck:
        """Make the primary a replica behind the sentinels' back; they may appoint the other one."""
        primary = self._primary()
        if primary.make_replica() is None:
            return None

        def undo() -> None:
            if self._primary() is primary:
                primary.make_primary()

        return undo

    def _put_back(self) -> Struck:
        """Give the primary its old data and the other server none: it gets them from there."""
        primary = self._primary()
        if not self._copy.exists():
            return None
        for one in self._servers.values():
            if one is not primary:
                one.end()
                one.copy_to(self._copy.with_name("replica"))
        struck = primary.put_back(self._copy)
        self.start()
        return struck

    def _fail_over(self) -> Struck:
        """Have the sentinels make the other server the primary, and see that they do."""
        before = self._primary()
        answers = [one.command("SENTINEL", "FAILOVER", SERVICE) for one in self._sentinels[:1]]
        ends_at = time.monotonic() + FAILOVER_LIMIT_S
        while answers == ["OK"] and time.monotonic() < ends_at:
            if self._primary() is not before:
                return nothing_to_undo
            time.sleep(0.1)
        return None
