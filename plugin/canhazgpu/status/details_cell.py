"""The DETAILS cell: end of a reservation, intruders, reason of a quarantine; pure."""

from __future__ import annotations

from canhazgpu.allocation.holder_text import share_text
from canhazgpu.durations import duration_text, short_duration_text
from canhazgpu.gpu.process_job import job_text
from canhazgpu.gpu.scan import GpuProcess
from canhazgpu.gpu.usage import MAX_PROCESSES_SHOWN, GpuState, processes_text
from canhazgpu.ledger.owner import RUN
from canhazgpu.ledger.values import Quarantine, Reservation
from canhazgpu.status.node_status import GpuStatus

WITHOUT_RESERVATION = "WITHOUT RESERVATION"
RESERVATION_NOT_KNOWN = "reservation not known"
ENDING_S = 120.0
"""For so long after its time limit a job or a run may still be ending: Slurm's KillWait, and the
epilog."""
MAX_NAME = 40
"""Characters shown of a job's name or a note, which users choose, unless the table is wide."""


def details_text(gpu: GpuStatus, now: float, *, wide: bool = False) -> str:
    """Return the DETAILS cell; with `wide` nothing is shortened.

    A MIG instance that is available or reserved has its profile at the end.
    """
    text = _details(gpu, now, wide=wide)
    profile = gpu.reading.mig_profile if gpu.reading else ""
    if not profile or gpu.state not in (GpuState.AVAILABLE, GpuState.RESERVED):
        return text
    return f"{text}; MIG {profile}" if text else f"MIG {profile}"


def _details(gpu: GpuStatus, now: float, *, wide: bool) -> str:
    if gpu.reservation is not None:
        return "; ".join(filter(None, _reservation_parts(gpu, gpu.reservation, now, wide=wide)))
    if gpu.quarantine is not None:
        return _quarantine_text(gpu.quarantine, now)
    if gpu.state is GpuState.UNRESERVED:
        return WITHOUT_RESERVATION
    if gpu.lacks_reservation_only:
        return RESERVATION_NOT_KNOWN
    if gpu.state is GpuState.AVAILABLE and gpu.released_at is not None:
        return f"free for {short_duration_text(now - gpu.released_at)}"
    return ""


def _reservation_parts(
    gpu: GpuStatus, held: Reservation, now: float, *, wide: bool
) -> tuple[str, ...]:
    # The most important part comes first: a narrow terminal cuts the end.
    claims = (_claim_text(one, now, wide=wide) for one in held.holders)
    return (
        _intruders_text(gpu.intruders, wide=wide),
        "; ".join(filter(None, claims)),
        f"quarantined: {_quarantine_text(gpu.quarantine, now)}" if gpu.quarantine else "",
        note_text(held.claim.note, wide=wide),
    )


def _claim_text(held: Reservation, now: float, *, wide: bool) -> str:
    claim = held.claim
    ends_at = claim.ends_at if held.expires_at is None else held.expires_at
    share = f" ({share_text(claim.share)})" if claim.share else ""
    text = claim_text(claim.job_id, claim.job_name, ends_at, now, share=share, wide=wide)
    heartbeat = _heartbeat_text(held, now) if claim.type == RUN and claim.job_id is None else ""
    return ", ".join(filter(None, (heartbeat, text)))


def claim_text(
    job_id: str | None,
    job_name: str | None,
    ends_at: float | None,
    now: float,
    *,
    share: str = "",
    wide: bool,
) -> str:
    """Return the job and its end, ``job 7 train.sh, ends in 5m 0s``; without a job the end."""
    if job_id is None:
        return "" if ends_at is None else end_text(ends_at, now, "expire")
    job = f"job {job_id} {_shortened(job_name or '', wide=wide)}".rstrip() + share
    return job if ends_at is None else f"{job}, {end_text(ends_at, now, 'end')}"


def _heartbeat_text(held: Reservation, now: float) -> str:
    # The grant is the first heartbeat. A record that cannot be read has neither time.
    last = held.renewed_at or held.granted_at
    return f"heartbeat {short_duration_text(now - last)} ago" if last else ""


def end_text(ends_at: float, now: float, verb: str) -> str:
    """Return when something ends or ended; `verb` is ``end`` or ``expire``."""
    if ends_at > now:
        return f"{verb}s in {duration_text(ends_at - now)}"
    if now - ends_at < ENDING_S:
        return {"end": "ending", "expire": "expiring"}[verb]
    past = {"end": "should have ended", "expire": "should have expired"}[verb]
    return f"{past} {short_duration_text(now - ends_at)} ago"


def _intruders_text(intruders: tuple[GpuProcess, ...], *, wide: bool) -> str:
    """Return ``bob WITHOUT RESERVATION: PID 23456 (python3)``."""
    if not intruders:
        return ""
    who = ",".join(dict.fromkeys(map(_intruder_name, intruders)))
    processes = processes_text(intruders, limit=None if wide else MAX_PROCESSES_SHOWN)
    return f"{who} {WITHOUT_RESERVATION}: {processes}"


def _intruder_name(process: GpuProcess) -> str:
    """Return the user, with the job if there is one: it may be another job of the holder."""
    user = process.user or ("unknown" if process.uid is None else str(process.uid))
    if process.job is None:
        return user
    return f"{user} ({job_text(process.job)})"


def _quarantine_text(quarantine: Quarantine, now: float) -> str:
    """Return ``row remap pending (health, 5m ago)``; an unreadable record has no time."""
    if not quarantine.since:
        return quarantine.reason
    ago = short_duration_text(now - quarantine.since)
    return f"{quarantine.reason} ({quarantine.by}, {ago} ago)"


def note_text(note: str | None, *, wide: bool) -> str:
    """Return a user's note, empty without one."""
    # In quotes, so that a user's note cannot look like a text of canhazgpu.
    return f'"{_shortened(note, wide=wide).replace(chr(34), chr(39))}"' if note else ""


def _shortened(text: str, *, wide: bool) -> str:
    return text if wide or len(text) <= MAX_NAME else text[: MAX_NAME - 3] + "..."
