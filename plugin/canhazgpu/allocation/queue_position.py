"""A waiter's position in a node's queue, and the text that it is shown; pure."""

from __future__ import annotations

from canhazgpu.allocation.gpu_choice import has_profile
from canhazgpu.allocation.holder_text import holder_text
from canhazgpu.allocation.refusal import Refusal
from canhazgpu.gpu.scan import GpuReading
from canhazgpu.ledger.values import NodeView, Waiter

MAX_HOLDERS_SHOWN = 3
"""Holders that the text names."""


def position_in_queue(view: NodeView, owner: str) -> int | None:
    """Return the owner's position in the queue, from 1; None where it is not in the queue."""
    for position, waiter in enumerate(view.queue, 1):
        if waiter.owner == owner:
            return position
    return None


def fits_by_ledger(view: NodeView, waiter: Waiter) -> bool:
    """Tell whether the waiter's GPUs are free by the ledger; a scan may find them in use."""
    if waiter.gpus:
        return not any(gpu in view.reservations or gpu in view.quarantines for gpu in waiter.gpus)
    if view.scan is None:
        return True
    held = {*view.reservations, *view.quarantines}
    return sum(gpu.uuid not in held for gpu in _choice(view, waiter)) >= waiter.count


def cannot_be_satisfied(view: NodeView, waiter: Waiter) -> bool:
    """Tell whether too many GPUs are quarantined or unreadable for any release to help the waiter.

    Such a waiter must not block those behind it.
    """
    held_back = set(view.quarantines) - set(view.reservations)
    if waiter.gpus:
        return not held_back.isdisjoint(waiter.gpus)
    gpus = _choice(view, waiter)
    usable = sum(gpu.uuid not in held_back and gpu.fault is None for gpu in gpus)
    return view.scan is not None and bool(view.scan.gpus) and usable < waiter.count


def _choice(view: NodeView, waiter: Waiter) -> list[GpuReading]:
    """Return the GPUs of the last scan of which the waiter wants some."""
    gpus = view.scan.gpus if view.scan else ()
    return [gpu for gpu in gpus if has_profile(gpu, waiter.profile)]


def waiting_text(
    view: NodeView,
    waiter: Waiter,
    position: int | None,
    refusal: Refusal,
    *,
    times: bool,
    sentence: str = "",
) -> str:
    """Return in one line what the wait is for; expiry times only with `times`.

    `sentence` says how many GPUs there are too few.
    """
    text = _reason_text(view, waiter, position, refusal, times=times)
    return f"{text}; {sentence}" if sentence and sentence not in text else text


def _reason_text(
    view: NodeView, waiter: Waiter, position: int | None, refusal: Refusal, *, times: bool
) -> str:
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
    """Return the requested GPUs: ``2 GPUs``, ``1 MIG instance 1g.10gb``, ``GPU-1234, GPU-5678``."""
    if waiter.gpus:
        return ", ".join(waiter.gpus)
    return waiter.count_text


def _queue_head_text(first: Waiter) -> str:
    return f"the first is {first.user} for {requested_gpus_text(first)}"


def _holders_text(view: NodeView, waiter: Waiter, *, times: bool) -> str:
    """Return the holders of GPUs that the waiter could use, those that expire first."""
    held = view.all_reservations()
    choice = set(waiter.gpus) or {gpu.uuid for gpu in _choice(view, waiter)}
    wanted = [one for one in held if one.gpu in choice or not view.scan]
    wanted.sort(key=lambda one: (one.expires_at is None, one.expires_at or 0.0, one.granted_at))
    now = view.read_at if times else None
    names = list(dict.fromkeys(holder_text(one, now) for one in wanted))
    shown = ", ".join(names[:MAX_HOLDERS_SHOWN])
    rest = len(names) - MAX_HOLDERS_SHOWN
    text = f"held by {shown}" + (f" and {rest} more" if rest > 0 else "")
    return text if names else "its GPUs are quarantined: see 'canhazgpu status'"
