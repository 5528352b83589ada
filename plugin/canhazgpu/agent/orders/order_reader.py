"""The agent's order reader: a process that waits at the store for the node's orders.

It waits in one command, so that it does nothing until an order comes. After one it ends, and the
next is forked: whatever an order left in the process goes with it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from canhazgpu.agent.callers.ordering_user import rights_of_ordering_user
from canhazgpu.agent.handler.fresh_process import become_fresh, use_environment
from canhazgpu.agent.scanner.scanned_node import open_scanned_node
from canhazgpu.config.schema import Config, StoreConfig
from canhazgpu.errors import CanhazgpuError, error_text, internal_error_text
from canhazgpu.in_process.adapters import Adapters
from canhazgpu.in_process.orders.carrying_out import take_and_carry_out
from canhazgpu.ledger.orders import OrderReaderKind
from canhazgpu.ledger.store.connect import Role
from canhazgpu.ledger.store.orders import OrderStore
from canhazgpu.logfmt import log_line
from canhazgpu.node.system_log import write_syslog
from canhazgpu.probe.bounded_child import die_with_parent
from canhazgpu.schedulers.slurm.job_check.node_environment import with_recorded_conf

WAIT_S = 60.0
"""The longest single wait at the store. A store that dies without a word is noticed after it, and
so often the node shows that it has an agent."""
FIRST_RETRY_S = 0.5
"""After a failed try; it doubles up to `store.retry_after_s`."""
BUSY_WAIT_S = 0.5
"""While another process of the node carries its orders out."""


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
        read_orders(self.node, self._try_once)

    def _try_once(self) -> bool:
        """Show that the node has an agent, and wait once; return whether an order came."""
        probe = partial(open_scanned_node, self.scanner_socket)
        environ = with_recorded_conf(self.environ)
        adapters = Adapters(environ, probe=probe, rights_of_giver=rights_of_ordering_user)
        if take_and_carry_out(self.node, adapters, OrderReaderKind.AGENT):
            return True
        orders = OrderStore(self.read_config().store, Role.WRITE)
        if not orders.wait(self.node, WAIT_S):
            return False
        if take_and_carry_out(self.node, adapters, OrderReaderKind.AGENT):
            return True
        time.sleep(BUSY_WAIT_S)
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
