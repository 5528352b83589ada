"""Reservations of a user that somebody else took lately, and why; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from canhazgpu.durations import short_duration_text
from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.ledger.notice import Notice
from canhazgpu.ledger.release_reasons import OVERRULED
from canhazgpu.ledger.values import Event
from canhazgpu.people.holdings import gpu_list_text

REVOCATION_SHOWN_FOR_S = 7 * 86400.0
"""How long a user is shown a revocation."""


@dataclass(frozen=True, slots=True)
class Revocation:
    """One owner's GPUs (UUIDs) that somebody else released at `at` (seconds since the epoch).

    `by` is "" for the node, which has found that a job of its own runs there.
    """

    node: str
    gpus: tuple[str, ...]
    at: float
    by: str
    reason: str


def revocations_from(uid: int, node: str, events: Iterable[Event]) -> list[Revocation]:
    """Return the user's reservations that others took, the latest last."""
    found: dict[tuple[str, str, str], Revocation] = {}
    for event in events:
        claim = event.claim
        if event.kind != "release" or claim is None or claim.uid != uid:
            continue
        if not event.by and event.reason != OVERRULED:
            continue
        key = (claim.owner, event.by, event.reason)
        before = found.pop(key, None)
        gpus = (*(before.gpus if before else ()), event.gpu)
        found[key] = Revocation(node, gpus, event.at, event.by, event.reason)
    return list(found.values())


def revocation_text(revocation: Revocation, display_indices: Mapping[str, str], now: float) -> str:
    """Return one line: ``GPU 1 of n1 was taken from you 5m ago by root: maintenance``."""
    gpus = gpu_list_text(revocation.gpus, display_indices)
    notice = Notice(gpus, revocation.at, revocation.by, revocation.reason)
    return notice_text(notice, revocation.node, now)


def notice_text(notice: Notice, node: str, now: float) -> str:
    """Return the same for a notice of the node's own."""
    ago = short_duration_text(max(now - notice.at, 0.0))
    were = "were" if "," in notice.gpus else "was"
    by = f" by {notice.by}" if notice.by else ""
    return f"{notice.gpus} of {node} {were} taken from you {ago} ago{by}: {notice.reason}"
