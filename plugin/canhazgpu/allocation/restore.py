"""Restore a reservation that the ledger does not have any more."""

from __future__ import annotations

from collections.abc import Sequence

from canhazgpu.allocation.allocator import GpuAllocator, Grant
from canhazgpu.allocation.refusal import RefusalKind
from canhazgpu.ledger.port import Ledger
from canhazgpu.ledger.values import Claim, Event


def find_release(events: Sequence[Event], owner: str) -> Event | None:
    """Return the recorded release of the owner's reservation, None without one."""
    for event in reversed(events):
        if event.kind == "release" and event.claim is not None and event.claim.owner == owner:
            return event
    return None


def release_text(event: Event) -> str:
    """Return who released the GPUs, and why."""
    by = f"{event.by} released it" if event.by else "it was released"
    return f"{by}: {event.reason}" if event.reason else by


def restore_reservation(
    ledger: Ledger, service: GpuAllocator, claim: Claim, gpus: Sequence[str]
) -> str:
    """Reserve GPUs again for an owner whose reservation Redis lost; return why that fails, or "".

    A recorded release was made on purpose: nothing is restored. Otherwise the owner gets the same
    GPUs, unless another owner holds them now. Its own processes on them are no conflict. A fault
    of the scan is no reason to give up: the return value is then "" too. Raises `StoreError`.
    """
    if event := find_release(ledger.history(service.node, 0.0), claim.owner):
        return release_text(event)
    outcome = service.reserve_given(claim, lambda readings: gpus, force=True)
    if isinstance(outcome, Grant) or outcome.kind is RefusalKind.FAULT:
        return ""
    return outcome.text
