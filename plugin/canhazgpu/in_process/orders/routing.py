"""Whether a request about another node becomes an order, which that node itself carries out.

One authority decides about a node's GPUs: its agent. So a node that is known to have one is never
written by others. Where none is known, a login that may write the node's keys does so itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING, TypeVar

from canhazgpu.config.host_role import has_own_gpus, require_own_gpus
from canhazgpu.ledger.orders import ID_DIGITS, OrderReaderKind
from canhazgpu.ledger.store.acl.users import ORDER, READER, user_name
from canhazgpu.ledger.store.login import address_with_login
from canhazgpu.ledger.store.url import EMBEDDED
from canhazgpu.node.identity import node_name
from canhazgpu.service.order_answers import Answer

if TYPE_CHECKING:
    from canhazgpu.allocation.progress import Progress
    from canhazgpu.config.schema import Config
    from canhazgpu.in_process.adapters import Adapters
    from canhazgpu.in_process.orders.give_order import OrderCommand
    from canhazgpu.ledger.orders import OrderReader
    from canhazgpu.service.orders import OrderedRequest

Request = TypeVar("Request", bound="OrderedRequest")


def here_or_ordered(
    adapters: Adapters,
    request: Request,
    progress: Progress,
    kind: type[Answer],
    carry_out: Callable[[Adapters, Request], Answer],
) -> Answer:
    """Return what `carry_out` returns, or what the other node answers to the order.

    Raises what either raises.
    """
    command = order_for(adapters, request, progress)
    if command is None:
        return carry_out(adapters, request)
    return command.carry_out(replace(request, node=None), adapters.caller(), kind)


def order_for(
    adapters: Adapters, request: OrderedRequest, progress: Progress
) -> OrderCommand | None:
    """Return what orders it of the other node; None where this process is to do it itself."""
    config = adapters.effective_config().config
    node = request.node
    if node is None or node == node_name(config.node, adapters.environ):
        require_own_gpus(config, "held", "name the node with --node")
        return None
    if config.store.url == EMBEDDED:
        # The private server has this node alone; it is then said that it knows no other.
        return None
    orders = adapters.orders(config.store)
    if not _is_order(config, orders.reader(node)):
        return None
    from canhazgpu.in_process.orders.give_order import OrderCommand  # noqa: PLC0415 - only for orders

    # The same request asked again is the same order.
    order_id = sha256(adapters.new_owner("order").encode()).hexdigest()[:ID_DIGITS]
    return OrderCommand(orders, node, order_id, progress, adapters.before_wait)


def _is_order(config: Config, reader: OrderReader | None) -> bool:
    if reader is not None and reader.kind is OrderReaderKind.AGENT:
        return True
    if not has_own_gpus(config):
        return True
    login = address_with_login(config.store).username
    return login in [user_name(config.store.prefix, role) for role in (ORDER, READER)]
