"""What became of a reservation that the ledger has no more; it may be put back."""

from __future__ import annotations

from collections.abc import Sequence

from canhazgpu.allocation.allocator import GpuAllocator, Grant
from canhazgpu.allocation.refusal import RefusalKind
from canhazgpu.ledger.port import Ledger
from canhazgpu.ledger.values import Claim, Event


def find_release(events: Sequence[Event], owner: str) -> Event | None:
    """Return the release that ended the owner's reservation, None where none is recorded."""
    for event in reversed(events):
        if event.kind == "release" and event.claim is not None and event.claim.owner == owner:
            return event
    return None


def release_text(event: Event) -> str:
    """Return who took the GPUs, and why."""
    by = f"{event.by} released it" if event.by else "it was released"
    return f"{by}: {event.reason}" if event.reason else by


def restore_reservation(
    ledger: Ledger, service: GpuAllocator, claim: Claim, gpus: Sequence[str]
) -> str:
    """Reserve again what a ledger without its memory forgot; returns why it is lost, or "".

    A recorded release is somebody's will and stays. Without one the run has its GPUs as before,
    unless they have another owner by now; that its own processes are on them is no conflict.
    Raises `StoreError`; whatever else keeps it from being known may pass.
    """
    if event := find_release(ledger.history(service.node, 0.0), claim.owner):
        return release_text(event)
    outcome = service.reserve_given(claim, lambda readings: gpus, force=True)
    if isinstance(outcome, Grant) or outcome.kind is RefusalKind.FAULT:
        return ""
    return outcome.text
