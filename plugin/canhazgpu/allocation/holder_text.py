"""The holder of a GPU in words; pure."""

from __future__ import annotations

from canhazgpu.durations import short_duration_text
from canhazgpu.ledger.values import Claim, Reservation, Share


def holder_name(claim: Claim) -> str:
    """Return the user and the kind of claim: ``alice (run)``, ``alice (job 12)``."""
    kind = f"job {claim.job_id}" if claim.job_id else claim.type
    return f"{claim.user} ({kind})"


def holder_text(holder: Reservation, now: float | None) -> str:
    """Return the same with scheduler and expiry: ``alice (slurm job 12)``.

    A reservation that expires reads ``bob (manual, expires in 2h 5m)``. Without `now` the expiry
    is left out, because it changes each time. All jobs that share the GPU are named.
    """
    return ", ".join(_holder_text(one, now) for one in holder.holders)


def share_text(share: Share) -> str:
    """Return ``shard 1 of 4``; without the total where that is not known."""
    of_total = f" of {share.total}" if share.total else ""
    return f"{share.kind} {share.amount}{of_total}"


def _holder_text(holder: Reservation, now: float | None) -> str:
    claim = holder.claim
    kind = f"{claim.type} job {claim.job_id}" if claim.job_id else claim.type
    if holder.expires_at is not None and now is not None:
        kind += f", expires in {short_duration_text(holder.expires_at - now)}"
    return f"{claim.user} ({kind})"
