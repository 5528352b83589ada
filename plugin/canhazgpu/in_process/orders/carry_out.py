"""Carry out the orders that others have given to this node, one process at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from canhazgpu.deadline import hard_deadline
from canhazgpu.errors import (
    CanhazgpuError,
    DeadlineError,
    NodeStateError,
    UnavailableError,
    error_text,
)
from canhazgpu.in_process.book.store_ledgers import own_identity
from canhazgpu.in_process.extend import extend
from canhazgpu.in_process.orders.taken_orders import TakenOrders
from canhazgpu.in_process.people_ledger import people_ledger
from canhazgpu.in_process.quarantine import quarantine, unquarantine
from canhazgpu.in_process.release import release, revoke
from canhazgpu.ledger.local.book_grants import Committer
from canhazgpu.ledger.orders import MAX_ANSWER_BYTES, OrderReaderKind
from canhazgpu.ledger.store.connect import Role
from canhazgpu.ledger.store.orders import OrderStore
from canhazgpu.logfmt import log_line
from canhazgpu.node.identity import state_dir
from canhazgpu.node.processes import this_process
from canhazgpu.node.state_files import make_directory, try_file_lock
from canhazgpu.node.system_log import DAEMON_INFO, write_syslog
from canhazgpu.node.users import ADMINISTRATORS_RIGHTS, EVERYBODYS_RIGHTS, Caller, Rights
from canhazgpu.service.health import QuarantineRequest, UnquarantineRequest
from canhazgpu.service.holdings import ExtendRequest, ReleaseRequest, RevokeRequest
from canhazgpu.service.order_answers import OrderAnswer, answer_to_text
from canhazgpu.service.orders import Order, order_from_text, refuse_if_void

if TYPE_CHECKING:
    from pathlib import Path

    from canhazgpu.config.schema import Config
    from canhazgpu.in_process.adapters import Adapters
    from canhazgpu.ledger.orders import TakenOrder
    from canhazgpu.ledger.port import Ledger

LOCK_FILE = ".orders.lock"
ORDER_DEADLINE_S = 10.0
"""Longest time for one order; what is not done by then is not done."""
TAKING_LIMIT_S = 5.0
"""After this time no more orders are taken; the rest is left to the next look."""

_REQUESTS: Mapping[type, Callable[..., OrderAnswer]] = {
    ReleaseRequest: release,
    ExtendRequest: extend,
    RevokeRequest: revoke,
    QuarantineRequest: quarantine,
    UnquarantineRequest: unquarantine,
}


def take_and_carry_out(node: str, adapters: Adapters, kind: OrderReaderKind) -> int:
    """Carry out what waits in the configured store, by the node's book; see `carry_out_orders`."""
    config = adapters.effective_config().config
    adapters = replace(adapters, node_ledger=partial(_open_ledger, adapters.environ))
    orders = OrderStore(config.store, Role.WRITE, own_identity(node, config, adapters.environ))
    try:
        return carry_out_orders(node, adapters, orders, kind)
    finally:
        # An agent that waits for the next order holds no connection meanwhile.
        orders.disconnect()


def _open_ledger(environ: Mapping[str, str], node: str, config: Config) -> Ledger:
    committer = Committer(this_process(), ORDER_DEADLINE_S)
    return people_ledger(node, config, environ, write_syslog, committer)


def carry_out_orders(
    node: str, adapters: Adapters, orders: OrderStore, kind: OrderReaderKind
) -> int:
    """Carry out what waits; return how many orders were taken.

    `adapters` are those of a command of root's on this node, with the ledger of its book. Nothing
    is done while another process of the node does this. Raises `StoreError`, also for an order
    whose answer could not be stored: it was carried out, and will not be again.
    """
    directory = state_dir(adapters.effective_config().config.node, node)
    lock = _try_lock(directory)
    if lock is None:
        return 0
    try:
        known = TakenOrders(directory)
        taken, ends_at = 0, adapters.clock() + TAKING_LIMIT_S
        while adapters.clock() < ends_at and (order := orders.take(node, kind)) is not None:
            outcome = _outcome(node, adapters, order, known)
            orders.answer(node, order, _answer_text(outcome))
            taken += 1
        return taken
    finally:
        os.close(lock)


def _try_lock(directory: Path) -> int | None:
    try:
        make_directory(directory)
        return try_file_lock(directory / LOCK_FILE)
    except OSError as exc:
        raise NodeStateError(
            f"cannot keep the node's records in {directory}: {exc.strerror}"
        ) from exc


def _answer_text(outcome: OrderAnswer | CanhazgpuError) -> str:
    text = answer_to_text(outcome)
    if len(text) > MAX_ANSWER_BYTES:
        return answer_to_text(UnavailableError("it is done, but its answer is too long to be sent"))
    return text


def _outcome(
    node: str, adapters: Adapters, taken: TakenOrder, known: TakenOrders
) -> OrderAnswer | CanhazgpuError:
    """Carry out one order; return what is answered, whatever happens."""
    facts: dict[str, object] = {"id": taken.id}
    outcome: OrderAnswer | CanhazgpuError
    try:
        order = order_from_text(taken.text)
        giver = order.giver
        facts |= {"verb": order.verb, "uid": giver.uid, "user": giver.user, "host": giver.host}
        refuse_if_void(order, node, taken.taken_at)
        if not known.take(taken.id, order.given_at + order.wait_s, taken.taken_at):
            raise UnavailableError(
                f"{node} has taken this order before, and the store has forgotten it: 'canhazgpu"
                f" status --node {node}' shows what was done"
            )
        with hard_deadline(ORDER_DEADLINE_S):
            outcome = _carry_out(adapters, order)
    except DeadlineError:
        outcome = UnavailableError(
            f"{node} did not get it done within {ORDER_DEADLINE_S:g} s: 'canhazgpu status --node"
            f" {node}' shows what it has done"
        )
    except CanhazgpuError as exc:
        outcome = exc
    except Exception as exc:
        # Whatever was ordered must not keep the next order from being carried out.
        outcome = UnavailableError(
            f"internal error of {node}: {type(exc).__name__}: {exc} (please report this)"
        )
    if isinstance(outcome, CanhazgpuError):
        facts["refused"] = error_text(outcome)
    write_syslog(log_line("order", node=node, **facts), DAEMON_INFO)
    return outcome


def _carry_out(adapters: Adapters, order: Order) -> OrderAnswer:
    caller = _ordering_caller(adapters, order)
    as_giver = replace(adapters, caller=lambda: caller)
    return _REQUESTS[type(order.request)](as_giver, order.request)


def _ordering_caller(adapters: Adapters, order: Order) -> Caller:
    """Return who counts as the caller; the history names the host, too."""
    giver = order.giver
    return Caller(giver.uid, f"{giver.user}@{giver.host}", _rights(adapters, order))


def _rights(adapters: Adapters, order: Order) -> Rights:
    """Return the giver's rights: who administrates, the host says, and who gets GPUs, the node."""
    if order.giver.is_administrator:
        return ADMINISTRATORS_RIGHTS
    if adapters.rights_of_giver is None or not isinstance(order.request, ExtendRequest):
        return EVERYBODYS_RIGHTS
    return adapters.rights_of_giver(adapters.effective_config().config.agent, order.giver.uid)
