"""Pure: reservations of a user that somebody else released lately, and why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from canhazgpu.durations import short_duration_text
from canhazgpu.ledger.values import Event
from canhazgpu.people.holdings import gpu_list_text

REVOCATION_SHOWN_FOR_S = 7 * 86400.0
"""How long a user is shown a revocation."""


@dataclass(frozen=True, slots=True)
class Revocation:
    """One owner's GPUs (UUIDs) that somebody else released at `at` (seconds since the epoch)."""

    node: str
    gpus: tuple[str, ...]
    at: float
    by: str
    reason: str


def revocations_from(uid: int, node: str, events: Iterable[Event]) -> list[Revocation]:
    """Return the user's reservations that others released, the latest last."""
    found: dict[tuple[str, str, str], Revocation] = {}
    for event in events:
        claim = event.claim
        if event.kind != "release" or not event.by or claim is None or claim.uid != uid:
            continue
        key = (claim.owner, event.by, event.reason)
        before = found.pop(key, None)
        gpus = (*(before.gpus if before else ()), event.gpu)
        found[key] = Revocation(node, gpus, event.at, event.by, event.reason)
    return list(found.values())


def revocation_text(revocation: Revocation, display_indices: Mapping[str, str], now: float) -> str:
    """Return one line: ``GPU 1 of n1 was taken from you 5m ago by root: maintenance``."""
    ago = short_duration_text(now - revocation.at)
    were = "was" if len(revocation.gpus) == 1 else "were"
    gpus = f"{gpu_list_text(revocation.gpus, display_indices)} of {revocation.node}"
    return f"{gpus} {were} taken from you {ago} ago by {revocation.by}: {revocation.reason}"
