"""The agent's order reader: a process that looks in the store for the node's orders.

A look is one round trip on a connection of its own, so that an idle node holds none. With
`agent.orders` "await" it waits at the store in one command instead, and an order is carried out at
once. After one it ends, and the next is forked: whatever an order left in the process goes with it.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from canhazgpu.agent.callers.ordering_user import rights_of_ordering_user
from canhazgpu.agent.handler.fresh_process import become_fresh, use_environment
from canhazgpu.agent.scanner.scanned_node import open_scanned_node
from canhazgpu.config.schema import Config, StoreConfig
from canhazgpu.errors import CanhazgpuError, error_text, internal_error_text
from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.in_process.adapters import Adapters
from canhazgpu.in_process.orders.carry_out import take_and_carry_out
from canhazgpu.ledger.orders import SHORTEST_LOOK_S, OrderReaderKind, look_interval_s
from canhazgpu.ledger.store.connect import Role
from canhazgpu.ledger.store.orders import OrderStore
from canhazgpu.logfmt import log_line
from canhazgpu.node.system_log import write_syslog
from canhazgpu.probe.bounded_child import die_with_parent
from canhazgpu.schedulers.slurm.job_check.node_environment import with_recorded_conf

AWAIT = "await"
"""Of `agent.orders`: wait at the store."""
WAIT_S = 60.0
"""The longest single wait at the store, or the longest time of looks. A store that dies without a
word is noticed after it, and so often the node shows that it has an agent."""
FIRST_LOOKS_S = (0.2, 0.3, 0.5, 0.5, 0.5, 1.0, 1.0, 1.0)
"""Waits before the first looks: whoever orders one thing often orders another."""
UNEVEN = 0.2
"""Waits differ by such a part, so that nodes which start together look at different times."""
FIRST_RETRY_S = 0.5
"""After a failed try; it doubles up to `store.retry_after_s`."""
BUSY_WAIT_S = 0.5
"""While another process of the node carries its orders out."""


class EndAfterOrders:
    """Ends this process at SIGTERM, but after what is being carried out: it is not repeated."""

    def __init__(self) -> None:
        self._is_put_off = self._is_due = False
        signal.signal(signal.SIGTERM, self._note)

    @contextlib.contextmanager
    def put_off(self) -> Iterator[None]:
        """Do not end inside."""
        self._is_put_off = True
        try:
            yield
        finally:
            self._is_put_off = False
            if self._is_due:
                os._exit(0)

    def _note(self, _number: int, _frame: object) -> None:
        if not self._is_put_off:
            os._exit(0)
        self._is_due = True


@dataclass(frozen=True, slots=True)
class OrderReaderProcess:
    """The order reader of this node; `environ` is the agent's."""

    node: str
    environ: Mapping[str, str]
    read_config: Callable[[], Config]
    scanner_socket: Path

    def run(self, parent: int) -> None:
        """Be the order reader of this agent (its pid), in a new process, until an order came."""
        die_with_parent(parent)()
        become_fresh(())
        use_environment(self.environ)
        read_orders(self.node, partial(self._try_once, iter(FIRST_LOOKS_S), EndAfterOrders()))

    def _try_once(self, first_waits_s: Iterator[float], end: EndAfterOrders) -> bool:
        """Show that the node has an agent, and wait for a time; return whether an order came."""
        probe = partial(open_scanned_node, self.scanner_socket)
        environ = with_recorded_conf(self.environ)
        adapters = Adapters(environ, probe=probe, rights_of_giver=rights_of_ordering_user)
        with end.put_off():
            taken = take_and_carry_out(self.node, adapters, OrderReaderKind.AGENT)
        if taken:
            return True
        config = self.read_config()
        orders = OrderStore(config.store, Role.WRITE)
        if config.agent.orders == AWAIT:
            has_order = orders.wait(self.node, WAIT_S)
        else:
            with_tls = config.store.url.startswith("rediss:")
            has_order = self._look(orders, first_waits_s, with_tls=with_tls)
        if not has_order:
            return False
        with end.put_off():
            taken = take_and_carry_out(self.node, adapters, OrderReaderKind.AGENT)
        if taken:
            return True
        time.sleep(BUSY_WAIT_S)
        return False

    def _look(self, orders: OrderStore, first_waits_s: Iterator[float], *, with_tls: bool) -> bool:
        """Look until there is an order, for `WAIT_S` at the longest; return whether there is."""
        ends_at, interval_s = time.monotonic() + WAIT_S, SHORTEST_LOOK_S
        while time.monotonic() < ends_at:
            uneven = random.uniform(1 - UNEVEN, 1 + UNEVEN)  # noqa: S311 - no secret
            time.sleep(next(first_waits_s, interval_s) * uneven)
            found = orders.look(self.node)
            if found.has_order:
                return True
            interval_s = look_interval_s(found.nodes, with_tls=with_tls)
        return False


def read_orders(
    node: str,
    try_once: Callable[[], bool],
    wait: Callable[[float], None] = time.sleep,
    longest_retry_s: float = StoreConfig().retry_after_s,
) -> None:
    """Call `try_once` until it returns True; what it raises is logged once, and tried again."""
    retry_s, told = 0.0, ""
    while True:
        try:
            if try_once():
                return
            retry_s, told = 0.0, ""
            continue
        except CanhazgpuError as exc:
            why = error_text(exc)
        except Exception as exc:
            # Whatever a server that is none of ours has answered.
            why = internal_error_text(exc)
        if why != told:
            write_syslog(log_line("orders-not-read", node=node, reason=why))
            told = why
        retry_s = min(retry_s * 2 or FIRST_RETRY_S, longest_retry_s)
        wait(retry_s)
