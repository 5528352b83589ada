"""Pure: whose turn it is in a node's queue, and what somebody who waits is told."""

from __future__ import annotations

from canhazgpu.allocation.refusal import Refusal, holder_text
from canhazgpu.ledger.values import NodeView, Waiter

MAX_HOLDERS_SHOWN = 3
"""Holders named to somebody who waits."""


def position_in_queue(view: NodeView, owner: str) -> int | None:
    """Return the owner's place in the queue, from 1; None where it is not in it."""
    for place, waiter in enumerate(view.queue, 1):
        if waiter.owner == owner:
            return place
    return None


def fits_by_ledger(view: NodeView, waiter: Waiter) -> bool:
    """Tell whether the ledger alone would let the waiter have its GPUs: a scan may say no."""
    if waiter.gpus:
        return not any(gpu in view.reservations or gpu in view.quarantines for gpu in waiter.gpus)
    if view.scan is None:
        return True
    held = {*view.reservations, *view.quarantines}
    return sum(gpu.uuid not in held for gpu in view.scan.gpus) >= waiter.count


def cannot_be_satisfied(view: NodeView, waiter: Waiter) -> bool:
    """Tell whether no release could give the waiter its GPUs: too many need somebody's hand.

    Such a one must not keep those behind it from theirs.
    """
    held_back = set(view.quarantines) - set(view.reservations)
    if waiter.gpus:
        return not held_back.isdisjoint(waiter.gpus)
    gpus = view.scan.gpus if view.scan else ()
    usable = sum(gpu.uuid not in held_back and gpu.fault is None for gpu in gpus)
    return bool(gpus) and usable < waiter.count


def waiting_text(
    view: NodeView, waiter: Waiter, position: int | None, refusal: Refusal, *, times: bool
) -> str:
    """Return what is waited for, in one line; `times` that pass meanwhile only where wanted."""
    what = f"waiting for {requested_gpus_text(waiter)} on {view.node}"
    if position is None:
        return f"{what}: joining the queue"
    if position > 1:
        return (
            f"{what}: position {position} of {len(view.queue)}, {_queue_head_text(view.queue[0])}"
        )
    if fits_by_ledger(view, waiter):
        return f"{what}: next in the queue; {refusal.text}"
    return f"{what}: next in the queue; {_holders_text(view, waiter, times=times)}"


def requested_gpus_text(waiter: Waiter) -> str:
    """Return what somebody waits for: ``1 GPU``, ``2 GPUs``, ``GPU-1234, GPU-5678``."""
    if waiter.gpus:
        return ", ".join(waiter.gpus)
    return "1 GPU" if waiter.count == 1 else f"{waiter.count} GPUs"


def _queue_head_text(first: Waiter) -> str:
    return f"the first is {first.user} for {requested_gpus_text(first)}"


def _holders_text(view: NodeView, waiter: Waiter, *, times: bool) -> str:
    """Say who holds what could be ours, those whose end is known first."""
    held = view.reservations.items()
    wanted = [one for gpu, one in held if gpu in waiter.gpus or not waiter.gpus]
    wanted.sort(key=lambda one: (one.expires_at is None, one.expires_at or 0.0, one.granted_at))
    now = view.read_at if times else None
    names = list(dict.fromkeys(holder_text(one, now) for one in wanted))
    shown = ", ".join(names[:MAX_HOLDERS_SHOWN])
    rest = len(names) - MAX_HOLDERS_SHOWN
    text = f"held by {shown}" + (f" and {rest} more" if rest > 0 else "")
    return text if names else "its GPUs are quarantined: see 'canhazgpu status'"
