"""Which reservations a user may release and extend; pure.

A reservation is a user's own if the ledger recorded it with the user's uid. A reservation whose
record is unreadable is nobody's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from canhazgpu.allocation.holder_text import holder_name
from canhazgpu.errors import InputError
from canhazgpu.ledger.owner import MANUAL, RUN
from canhazgpu.ledger.user_limits import reserve_limit_text
from canhazgpu.ledger.values import Claim, NodeView, Reservation
from canhazgpu.people.holdings import Holding, current_reservations, gpu_list_text, holdings


def holdings_to_release(
    view: NodeView,
    uid: int,
    gpus: Sequence[str] | None,
    display_indices: Mapping[str, str],
    *,
    force: bool = False,
) -> tuple[Holding, ...]:
    """Return what is to be released: the named GPUs, or all that the user reserved by hand.

    Raises `InputError` where a named GPU is held by another user, by a job or (without `force`) by
    a running command; nothing is released then. A named GPU that nobody holds counts as released.
    """
    if gpus is None:
        return holdings(view, lambda one: _is_held_by(one, uid) and one.claim.type == MANUAL)
    held = current_reservations(view)
    for gpu in gpus:
        if gpu in held:
            refusal = _release_refusal(_own_or_first(held[gpu], uid), uid, force=force)
            if refusal:
                raise InputError(
                    f"{gpu_list_text([gpu], display_indices)} of {view.node} {refusal}"
                )
    return holdings(view, lambda _: True, gpus)


def run_holdings(view: NodeView, uid: int) -> tuple[Holding, ...]:
    """Return the holdings of the user's running commands."""
    return holdings(view, lambda one: _is_held_by(one, uid) and one.claim.type == RUN)


def holdings_to_extend(
    view: NodeView, uid: int, gpus: Sequence[str] | None, display_indices: Mapping[str, str]
) -> tuple[Holding, ...]:
    """Return what is to be extended: the named GPUs, or all that the user reserved for a time.

    Raises `InputError` where there is none, and for a named GPU that the user cannot extend.
    """
    held = current_reservations(view)
    for gpu in gpus or ():
        if gpu not in held or not _is_extendable_by(held[gpu], uid):
            refusal = _extend_refusal(held, gpu, uid)
            raise InputError(f"{gpu_list_text([gpu], display_indices)} of {view.node} {refusal}")
    found = holdings(view, lambda one: _is_extendable_by(one, uid), gpus)
    if not found:
        raise InputError(
            f"you hold no reservation for a time on {view.node}; it may have expired:"
            " reserve with 'canhazgpu reserve'"
        )
    return found


def check_max_reserve(
    view: NodeView, found: Sequence[Holding], duration_s: float, max_reserve_s: float
) -> None:
    """Raise `InputError` where a reservation would last longer than `max_reserve_s` from now on.

    A `max_reserve_s` of 0 is no limit.
    """
    if not max_reserve_s:
        return
    ends = [view.reservations[gpu].expires_at or 0.0 for one in found for gpu in one.gpus]
    left_s = max(ends) - view.read_at
    if left_s + duration_s > max_reserve_s:
        more_s = max(int(max_reserve_s - left_s), 0)
        raise InputError(f"{reserve_limit_text(max_reserve_s)}; at most {more_s}s can be added")


def _is_held_by(reservation: Reservation, uid: int) -> bool:
    return reservation.claim.uid == uid


def _own_or_first(held: Reservation, uid: int) -> Reservation:
    """Return the user's own reservation of a GPU that jobs share, else the first one."""
    return next((one for one in held.holders if _is_held_by(one, uid)), held)


def _is_extendable_by(reservation: Reservation, uid: int) -> bool:
    own = _is_held_by(reservation, uid) and reservation.claim.type == MANUAL
    return own and reservation.expires_at is not None


def _release_refusal(reservation: Reservation, uid: int, *, force: bool) -> str:
    """Return why the user may not release this, empty where it may."""
    claim = reservation.claim
    if not _is_held_by(reservation, uid):
        return _other_holder_text(claim, "release")
    if claim.type == MANUAL or (claim.type == RUN and force):
        return ""
    if claim.type == RUN:
        return f"is held by your running command{_pids_text(claim)}: end it instead, or add --force"
    return f"is held by your job {claim.job_id}: it is released when the job ends"


def _extend_refusal(held: Mapping[str, Reservation], gpu: str, uid: int) -> str:
    if gpu not in held:
        return "is not reserved; reserve it with 'canhazgpu reserve'"
    one = _own_or_first(held[gpu], uid)
    if not _is_held_by(one, uid):
        return _other_holder_text(one.claim, "extend")
    claim = one.claim
    what = {RUN: "running command", MANUAL: "reservation"}.get(claim.type, f"job {claim.job_id}")
    return f"is held by your {what}, which has no end to extend"


def _other_holder_text(claim: Claim, verb: str) -> str:
    text = f"is reserved by {holder_name(claim)}, who alone may {verb} it"
    if verb == "release":
        text += "; an administrator takes it away with 'canhazgpu admin release'"
    return text


def _pids_text(claim: Claim) -> str:
    pids = ", ".join(str(one.pid) for one in claim.processes)
    return f" (PID {pids})" if pids else ""
