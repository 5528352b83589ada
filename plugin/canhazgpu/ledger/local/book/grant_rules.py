"""The rules by which a node grants GPUs without the store, the same as the scripts'; pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from canhazgpu.ledger.co_holders import holder_of, shares_with
from canhazgpu.ledger.grant_answers import BlockedGpu, GrantedGpus, TooFewGpus
from canhazgpu.ledger.local.book.book import Book
from canhazgpu.ledger.port import Observation
from canhazgpu.ledger.values import Claim


def grant_given(
    book: Book, claim: Claim, gpus: Sequence[str], observation: Observation, now: float
) -> GrantedGpus | BlockedGpu:
    """Grant exactly these GPUs, or none; see `Ledger.reserve_given`."""
    wanted = tuple(dict.fromkeys(gpus))
    held = set(book.gpus_of(claim.owner))
    why_not = _refusal_reason(book, claim, observation, now)
    for gpu in wanted:
        if gpu not in held and (why := why_not(gpu)):
            return BlockedGpu(gpu, why, book.reservations.get(gpu))
    return GrantedGpus(wanted, repeated=set(wanted) <= held)


def grant_count(
    book: Book,
    claim: Claim,
    count: int,
    observation: Observation,
    now: float,
    *,
    candidates: Collection[str] | None = None,
    affinity: bool = False,
) -> GrantedGpus | TooFewGpus:
    """Grant `count` GPUs, the least recently released first, or none; see `Ledger.reserve_count`.

    With `affinity` those come first that the claim's user released last, by what the node recorded
    itself.
    """
    scan_order = {gpu: position for position, gpu in enumerate(observation.scan.by_uuid())}

    def order_of(gpu: str) -> tuple[int, str]:
        return scan_order.get(gpu, len(scan_order)), gpu

    if held := sorted(book.gpus_of(claim.owner), key=order_of):
        return GrantedGpus(tuple(held), repeated=True)
    why_not = _refusal_reason(book, claim, observation, now)
    reasons = {gpu: why_not(gpu) for gpu in scan_order if candidates is None or gpu in candidates}
    free = [gpu for gpu, why in reasons.items() if not why]
    if not 1 <= count <= len(free):
        refusals = list(reasons.values())
        return TooFewGpus(count, len(free), *(refusals.count(why) for why in REFUSAL_REASONS))

    def preference(gpu: str) -> tuple[bool, float, int]:
        released_at = book.released_at.get(gpu, 0.0)
        is_mine = affinity and book.released_by.get(gpu) == claim.user
        return not is_mine, -released_at if is_mine else released_at, scan_order[gpu]

    chosen = sorted(free, key=preference)[:count]
    return GrantedGpus(tuple(sorted(chosen, key=order_of)))


REFUSAL_REASONS = ("reserved", "unreserved", "quarantined", "stale", "unknown")
"""The reasons why a GPU is not granted, in the order of the fields of `TooFewGpus`."""


def _refusal_reason(
    book: Book, claim: Claim, observation: Observation, now: float
) -> Callable[[str], str]:
    """Return a function that says why a GPU is not available; "" if it is."""
    began = now - observation.age_s
    seen = observation.scan.by_uuid()
    quarantined = {*book.quarantines, *observation.unhealthy}

    def why_not(gpu: str) -> str:
        held = book.reservations.get(gpu)
        shared = claim.share is not None and (held is None or shares_with(claim, held))
        users = observation.covered.get(gpu)
        covered = shared and users is not None and all(holder_of(held, one) for one in users)
        answers = {
            "reserved": held is not None and not shared,
            "quarantined": gpu in quarantined,
            "unreserved": gpu in observation.in_use and not covered,
            "unknown": gpu in observation.unknown or gpu not in seen,
            "stale": book.released_at.get(gpu, 0.0) > began,
        }
        return next((why for why, holds in answers.items() if holds), "")

    return why_not
