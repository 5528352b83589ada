"""What became of a reservation that the ledger has no more; it may be put back."""

from __future__ import annotations

from collections.abc import Sequence

from canhazgpu.allocator import GpuService, Grant
from canhazgpu.ledger.port import Ledger
from canhazgpu.ledger.values import Claim, Event
from canhazgpu.refusal import RefusalKind


def release_of(events: Sequence[Event], owner: str) -> Event | None:
    """Return the release that ended the owner's reservation, None where none is recorded."""
    for event in reversed(events):
        if event.kind == "release" and event.claim is not None and event.claim.owner == owner:
            return event
    return None


def lost_text(event: Event) -> str:
    """Return who took the GPUs, and why."""
    by = f"{event.by} released it" if event.by else "it was released"
    return f"{by}: {event.reason}" if event.reason else by


def restore(ledger: Ledger, service: GpuService, claim: Claim, gpus: Sequence[str]) -> str:
    """Reserve again what a ledger without its memory forgot; returns why it is lost, or "".

    A recorded release is somebody's will and stays. Without one the run has its GPUs as before,
    unless they have another owner by now; that its own processes are on them is no conflict.
    Raises `StoreError`; whatever else keeps it from being known may pass.
    """
    if event := release_of(ledger.history(service.node, 0.0), claim.owner):
        return lost_text(event)
    outcome = service.reserve_given(claim, lambda readings: gpus, force=True)
    if isinstance(outcome, Grant) or outcome.kind is RefusalKind.FAULT:
        return ""
    return outcome.text
