"""Who holds a GPU together with whom: one owner alone, or several jobs that share it; pure.

A `Reservation` with `co_holders` stands for all owners of its GPU. The scripts' text
``shared/reservations.lua`` has the same rules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from canhazgpu.ledger.values import Claim, Reservation

Reservations = Mapping[str, Reservation]
"""The reservations of a node by GPU."""


def combine(holders: Iterable[Reservation]) -> Reservation | None:
    """Return one reservation of all these owners of a GPU, None without any."""
    first, *others = (*holders,) or (None,)
    return replace(first, co_holders=tuple(filter(None, others))) if first else None


def shares_with(claim: Claim, held: Reservation) -> bool:
    """Tell whether the claim and every other owner of the GPU hold shares of one kind."""
    others = [one.claim.share for one in held.holders if one.claim.owner != claim.owner]
    return claim.share is not None and all(
        one is not None and one.kind == claim.share.kind for one in others
    )


def holder_of(held: Reservation | None, owner: str) -> Reservation | None:
    """Return the owner's own reservation of a GPU, None if it has none."""
    holders = held.holders if held else ()
    return next((one for one in holders if one.claim.owner == owner), None)


def select_holders(
    reservations: Reservations, selects: Callable[[Reservation], bool]
) -> dict[str, Reservation]:
    """Return the reservations with only the selected owners of each GPU."""
    kept = {
        gpu: combine([one for one in held.holders if selects(one)])
        for gpu, held in reservations.items()
    }
    return {gpu: one for gpu, one in kept.items() if one is not None}


def change_holders(
    reservations: Reservations, change: Callable[[Reservation], Reservation]
) -> dict[str, Reservation]:
    """Return the reservations with each owner's as `change` returns it."""
    return {
        gpu: combine([change(one) for one in held.holders]) or held
        for gpu, held in reservations.items()
    }


def without_expired(reservations: Reservations, now: float) -> dict[str, Reservation]:
    """Return the reservations that have not expired at `now`, seconds since the epoch."""
    if all(
        not one.co_holders and (one.expires_at is None or one.expires_at > now)
        for one in reservations.values()
    ):
        return dict(reservations)
    return select_holders(reservations, lambda one: one.expires_at is None or one.expires_at > now)


def add_holder(reservations: Reservations, one: Reservation) -> dict[str, Reservation]:
    """Return the reservations with this one: beside those that share with it, else in their place.

    Nothing changes where its owner holds the GPU already.
    """
    held = reservations.get(one.gpu)
    if holder_of(held, one.claim.owner):
        return dict(reservations)
    beside = held.holders if held and shares_with(one.claim, held) else ()
    return {**reservations, one.gpu: combine([*beside, one]) or one}
