"""What comes next for a job, a run or a manual reservation, as lines for people; pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.ledger.journal_entries import QUARANTINE, UNQUARANTINE
from canhazgpu.ledger.values import Reservation
from canhazgpu.status.event_format import NodeEvent, local_time_text
from canhazgpu.status.scheduler_jobs import JobNow

PENDING = "PENDING"
ON_NODES = ("RUNNING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING")
STARTING = "CONFIGURING"
ENDING = "COMPLETING"
REASONS_TO_WAIT = ("BeginTime", "Resources", "Priority", "Dependency")
"""What squeue still shows as the reason of a job that ended while it waited."""
NO_REASONS = ("", "None")


@dataclass(frozen=True, slots=True)
class Holding:
    """A GPU that the owner holds now, on a node."""

    node: str
    reservation: Reservation


def scheduler_lines(
    job_id: str, now: JobNow | None, fault: str, read_at: float, *, began: bool
) -> Iterator[str]:
    """Yield what Slurm says of the job now; `fault` says why it gave no answer.

    `read_at` is the present, in seconds since the epoch; `began` says that a node has seen the job.
    """
    if fault:
        yield f"Slurm cannot tell what comes next: {fault}"
    elif now is None:
        yield (
            f"Slurm does not know it any more: what became of it, 'sacct -j {job_id}' tells where"
            " accounting is set up"
        )
    else:
        yield f"Slurm: {_state_text(now, read_at, began=began)}"


def _state_text(now: JobNow, read_at: float, *, began: bool) -> str:
    why = f" ({now.reason})" if now.reason not in NO_REASONS else ""
    on_nodes = f" on {now.nodes}" if now.nodes else ""
    later = now.starts_at is not None and now.starts_at > read_at
    starts = local_time_text(now.starts_at) if now.starts_at is not None else ""
    if now.state == PENDING and now.is_held:
        not_before = f", and not before {starts}" if later else ""
        return (
            f"{PENDING}, held{why}: 'scontrol release {now.address}' lets it try again{not_before}"
        )
    if now.state == PENDING:
        verb = "is tried again" if began else "starts"
        return f"{PENDING}{why}" + (f", it {verb} at {starts} or later" if later else "")
    if now.state == STARTING:
        return f"{STARTING}{on_nodes}: its prologs run"
    if now.state in ON_NODES:
        since = f" since {starts}" if starts else ""
        until = f", until {local_time_text(now.ends_at)} at most" if now.ends_at else ""
        return f"{now.state}{on_nodes}{since}{until}"
    if now.state == ENDING:
        return f"{ENDING}{on_nodes}: its epilogs run"
    ended = f" at {local_time_text(now.ends_at)}" if now.ends_at else ""
    why = "" if now.reason in REASONS_TO_WAIT else why
    return f"{now.state}{ended}{on_nodes}{why}"


def quarantine_lines(events: Sequence[NodeEvent]) -> Iterator[str]:
    """Yield which GPUs are still quarantined for what the job left, and what lifts it."""
    still: dict[tuple[str, str], None] = {}
    for one in events:
        place = (one.node, one.event.gpu)
        if one.event.kind == QUARANTINE:
            still[place] = None
        elif one.event.kind == UNQUARANTINE:
            still.pop(place, None)
    for node, gpu in still:
        yield (
            f"{gpu} on {node} stays quarantined until a health check finds it free, or"
            " 'canhazgpu admin unquarantine' lifts it"
        )


def holding_lines(holdings: Sequence[Holding], now: JobNow | None) -> Iterator[str]:
    """Yield what the owner holds, until when, and who releases it if its job is over."""
    is_over = now is not None and now.state not in (PENDING, STARTING, ENDING, *ON_NODES)
    for one in holdings:
        held = one.reservation
        since = f" since {local_time_text(held.granted_at)}" if held.granted_at else ""
        until = f", until {local_time_text(held.expires_at)}" if held.expires_at else ""
        late = ": no epilog released it, the node's health check does" if is_over else ""
        yield f"holds {held.gpu} on {one.node}{since}{until}{late}"
