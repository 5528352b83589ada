"""What `canhazgpu explain` prints: the answer as lines for people, and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from canhazgpu.ledger.journal_entries import entry_to_dict
from canhazgpu.service.history import ExplainAnswer, JobOnNode, RecordedJob
from canhazgpu.status.event_format import bounded_line, event_to_dict
from canhazgpu.status.history.next_steps import holding_lines, quarantine_lines, scheduler_lines
from canhazgpu.status.history.owner_events import events_from_entries, requeued_by_others
from canhazgpu.status.history.owner_history import history_lines


def answer_to_dict(answer: ExplainAnswer) -> dict[str, Any]:
    """Return the answer for JSON; programs rely on the keys."""
    return {
        "job_id": answer.job_id or None,
        "owner": answer.owner or None,
        "events": [event_to_dict(one) for one in answer.events],
        "here": _node_to_dict(answer.on_this_node),
        "holds": [
            {
                "node": one.node,
                "gpu": one.reservation.gpu,
                "owner": one.reservation.claim.owner,
                "granted_at": one.reservation.granted_at or None,
                "expires_at": one.reservation.expires_at,
            }
            for one in answer.holdings
        ],
        "slurm": None if answer.scheduler is None else asdict(answer.scheduler),
        "slurm_fault": answer.scheduler_fault or None,
        "next": list(_next_lines(answer)),
    }


def _node_to_dict(job: JobOnNode) -> dict[str, Any]:
    pending = None
    if job.pending is not None:
        pending = [entry_to_dict(one) for one in job.pending]
    return {
        "node": job.node,
        "record": None if job.record is None else _record_to_dict(job.record),
        "pending": pending,
        "pending_fault": job.pending_fault,
    }


def _record_to_dict(record: RecordedJob) -> dict[str, Any]:
    return {
        "owner": record.owner,
        "user": record.user,
        "gpus": [{"gpu": gpu.uuid, "position": gpu.position} for gpu in record.gpus],
        "ended": record.ended,
        "epilogs_owed": record.epilogs_owed,
    }


def answer_lines(answer: ExplainAnswer) -> Iterator[str]:
    """Yield the lines: who, what happened on each node, what is on record here, what comes next."""
    return map(bounded_line, _lines(answer))


def _lines(answer: ExplainAnswer) -> Iterator[str]:
    yield _head_line(answer)
    job = answer.on_this_node
    events = {
        node: [one.event for one in answer.events if one.node == node]
        for node in {one.node for one in answer.events}
    }
    if job.pending:
        events.setdefault(job.node, []).extend(events_from_entries(job.pending))
    requeued = requeued_by_others(event for node in events.values() for event in node)
    for node in sorted(events):
        yield from history_lines(node, events[node], answer.job_id or None, requeued)
    if job.record is not None:
        state = "over, not told to the store yet" if job.record.ended else "not over"
        gpus = ", ".join(gpu.uuid for gpu in job.record.gpus) or "no GPUs"
        yield f"on record on {job.node}: {job.record.owner}, {gpus}, {state}"
    if job.pending:
        kinds = ", ".join(one.kind for one in job.pending)
        yield f"the store has not heard yet from {job.node}: {kinds}"
    elif job.pending is None and answer.fault is not None:
        yield (
            f"what {job.node} has yet to tell the store, only root can read:"
            f" 'sudo canhazgpu explain {answer.job_id}' there"
        )
    yield from _next_lines(answer)


def _head_line(answer: ExplainAnswer) -> str:
    job = answer.on_this_node
    users = {one.event.claim.user for one in answer.events if one.event.claim}
    users |= {one.reservation.claim.user for one in answer.holdings}
    users |= {job.record.user} if job.record else set()
    users |= {answer.scheduler.user} if answer.scheduler else set()
    of_users = f" of {', '.join(sorted(users))}" if users else ""
    if not answer.job_id:
        return f"{answer.owner}{of_users}"
    address = answer.scheduler.address if answer.scheduler else ""
    return f"job {answer.job_id}{of_users}{_address_text(answer.job_id, address)}"


def _address_text(job_id: str, address: str) -> str:
    """Return what Slurm calls a task of an array or a component of a heterogeneous job."""
    if address in ("", job_id):
        return ""
    others = ""
    for separator, what in (("_", "tasks"), ("+", "components")):
        leader, found, _ = address.partition(separator)
        if found and leader == job_id:
            others = f"; explain its other {what} as {leader}{separator}N"
    return f", which Slurm calls {address}{others}"


def _next_lines(answer: ExplainAnswer) -> Iterator[str]:
    yield from quarantine_lines(answer.events)
    yield from holding_lines(answer.holdings, answer.scheduler)
    if answer.job_id:
        yield from scheduler_lines(
            answer.job_id,
            answer.scheduler,
            answer.scheduler_fault,
            answer.read_at,
            began=bool(answer.events),
        )


def unknown_owner_text(answer: ExplainAnswer, since: str) -> str:
    """Return what to do about an owner of whom neither the history nor this node knows anything."""
    further = (
        f"'--since {answer.history_days}d' goes back as far as the history is kept"
        if answer.history_days
        else "see --since"
    )
    if not answer.job_id:
        return (
            f"nothing is known of {answer.owner} in the last {since}; 'canhazgpu status --json'"
            f" names all owners of now, 'canhazgpu events --json' those before; {further}"
        )
    text = f"nothing is known of job {answer.job_id} in the last {since}"
    if answer.scheduler is not None:
        return (
            f"{text}, but Slurm knows it: it has not begun, or asks for no GPUs, or began before"
            f" that; {further}"
        )
    if answer.scheduler_fault:
        return f"{text}; check the number with 'squeue --me'; {further}"
    return f"{text}, and Slurm does not know it: check the number with 'squeue --me'; {further}"
