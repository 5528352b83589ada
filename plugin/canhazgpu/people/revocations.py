"""Pure: what an administrator has taken from somebody lately, and why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from canhazgpu.duration_text import short_duration_text
from canhazgpu.ledger.values import Event
from canhazgpu.people.holdings import gpu_list_text

REVOCATION_SHOWN_FOR_S = 7 * 86400.0
"""How long somebody is told."""


@dataclass(frozen=True, slots=True)
class Revocation:
    """One owner's GPUs (UUIDs) that somebody else released at `at` (seconds since the epoch)."""

    node: str
    gpus: tuple[str, ...]
    at: float
    by: str
    reason: str


def revocations_from(uid: int, node: str, events: Iterable[Event]) -> list[Revocation]:
    """Return what others released of the user's reservations, the latest last."""
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


def revocation_text(taken: Revocation, places: Mapping[str, str], now: float) -> str:
    """Return it as one line: ``GPU 1 of n1 was taken from you 5m ago by root: maintenance``."""
    ago = short_duration_text(now - taken.at)
    were = "was" if len(taken.gpus) == 1 else "were"
    names = gpu_list_text(taken.gpus, places)
    return f"{names} of {taken.node} {were} taken from you {ago} ago by {taken.by}: {taken.reason}"
