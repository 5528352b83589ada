"""Carry out a node's orders with its health check, where no agent waits for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from canhazgpu.in_process.adapters import Adapters
from canhazgpu.in_process.orders.agent_presence import agent_listens
from canhazgpu.in_process.orders.carry_out import take_and_carry_out
from canhazgpu.ledger.orders import OrderReaderKind
from canhazgpu.ledger.store.url import EMBEDDED
from canhazgpu.logfmt import log_line
from canhazgpu.node.identity import node_name, state_dir
from canhazgpu.node.system_log import write_syslog
from canhazgpu.schedulers.slurm.hook.failure import hook_error_text

if TYPE_CHECKING:
    from canhazgpu.in_process.adapters import RightsOfGiver
    from canhazgpu.service.jobs import CheckRequest

CHECK = "check"
"""Of `agent.orders`: the health check takes the orders, though there is an agent."""
CONFIRM_LIMIT_S = 0.0
"""A request that was confirmed is confirmed: nothing is asked a second time."""


def carry_out_at_check(
    request: CheckRequest, *, in_agent: bool, rights_of_giver: RightsOfGiver | None = None
) -> None:
    """Carry them out after the check. What fails is logged: the next check tries again.

    `in_agent`: this process is a child of the node's agent, which knows the givers' rights.
    """
    if not request.caller.confirms(CONFIRM_LIMIT_S):
        return
    adapters = Adapters(request.environment, rights_of_giver=rights_of_giver)
    node = ""
    try:
        config = adapters.effective_config().config
        if config.store.url == EMBEDDED:
            return
        node = node_name(config.node, request.environment)
        has_agent = in_agent or agent_listens(state_dir(config.node, node))
        if has_agent and config.agent.orders != CHECK:
            return
        kind = OrderReaderKind.AGENT if has_agent else OrderReaderKind.CHECK
        take_and_carry_out(node, adapters, kind)
    except Exception as exc:
        write_syslog(log_line("orders-not-taken", node=node, reason=hook_error_text(exc)))
