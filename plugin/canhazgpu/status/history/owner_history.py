"""The history of one job, run or manual reservation on a node, as lines for people; pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from canhazgpu.allocation.holder_text import share_text
from canhazgpu.durations import short_duration_text
from canhazgpu.gpu.use_text import use_texts
from canhazgpu.ledger.journal_entries import EPILOG, NOTE_KINDS, PROLOG, RELEASE, USE
from canhazgpu.ledger.values import Event
from canhazgpu.status.event_format import local_time_text, outcome_text
from canhazgpu.status.history.owner_events import (
    ATTEMPT_FACT,
    JOB,
    checked_jobs,
    cluster_of,
    dicts_in,
    parts_of_owner,
    prolog_gaps,
    texts_in,
)

OUTCOMES = {
    (EPILOG, "nothing"): "nothing to release",
    (PROLOG, "nothing"): "nothing reserved",
    (PROLOG, "fault"): "nothing reserved",
    (EPILOG, "fault"): "nothing released",
}
"""What an outcome means for a hook's kind, where its one word says too little."""
ATTEMPTS = {"earlier": " of an earlier attempt", "unknown": ""}
"""The text of an attempt that is not known, by the fact `ATTEMPT_FACT`."""
STORE_LOST = "event=store-lost "
"""The beginning of a hook's line that the fact ``without_store`` repeats."""
REQUEUED_BY_OTHERS = (
    "Slurm requeued it, not canhazgpu: its user, an administrator, preemption or a node's failure"
)


def history_lines(
    node: str,
    events: Sequence[Event],
    job_id: str | None = None,
    requeued: Collection[str] = (),
) -> Iterator[str]:
    """Yield lines: the events of one owner on one node, in order.

    Of a health check those parts are shown that concern the job. `requeued` are attempts (owners)
    after whose last event it is said that others requeued the job.
    """
    names = _GpuNames(events)
    last = {event.claim.owner: event for event in events if event.claim}
    show_cluster = len({cluster_of(event) for event in events} - {""}) > 1
    gaps = prolog_gaps(events)
    noted = {event.claim.owner for event in events if event.claim and event.facts.get("use")}
    yield f"node {node}"
    for event in events:
        yield from _event_lines(event, names, job_id, show_cluster=show_cluster)
        owner = event.claim.owner if event.claim else ""
        if event.kind == RELEASE and owner not in noted and (unused := _unused_text(event)):
            yield f"      {unused}"
        if event.kind == EPILOG and owner in gaps:
            yield f"      {gaps[owner]}"
        if owner in requeued and last[owner] is event:
            yield f"      {REQUEUED_BY_OTHERS}"


def _event_lines(
    event: Event, names: _GpuNames, job_id: str | None, *, show_cluster: bool
) -> Iterator[str]:
    at = f"  {local_time_text(event.at)}  "
    if checked := checked_jobs(event, job_id):
        yield from (f"{at}health check: {one.get('what', '?')}" for one in checked)
        return
    if event.kind == USE:
        yield f"{at}use of its GPUs"
    else:
        yield at + _event_text(event, names, show_cluster=show_cluster)
    if event.kind not in NOTE_KINDS:
        return
    yield from (f"      {line}" for line in _action_lines(event))
    yield from (f"      saw {_scanned_gpu_text(gpu)}" for gpu in _shown_gpus(event))
    yield from (f"      {text}" for text in use_texts(event.facts.get("use")))
    if without := event.facts.get("without_store"):
        yield f"      without the store: {without}"


def _unused_text(event: Event) -> str:
    """Return for how long scans found a released GPU unused, "" where they did not."""
    held_s = event.at - event.granted_at if event.granted_at is not None else 0.0
    if not 1.0 <= event.idle_s <= held_s + 1.0:
        return ""
    idle, held = short_duration_text(min(event.idle_s, held_s)), short_duration_text(held_s)
    return f"unused for {idle} of {held}, by scans"


def _event_text(event: Event, names: _GpuNames, *, show_cluster: bool) -> str:
    attempt = _attempt_text(event, show_cluster=show_cluster)
    if event.kind in NOTE_KINDS:
        text = f"{event.kind}{attempt}: {_note_text(event, names)}"
    else:
        gpu = names.text(event.gpu)
        share = f" ({share_text(event.claim.share)})" if event.claim and event.claim.share else ""
        text = f"{event.kind}{attempt}: {gpu}{share} {outcome_text(event)}".rstrip(" :")
    text += f", by {event.by}" if event.by else ""
    text += "" if event.id else ", not in Redis yet"
    return f"{text}: {event.reason}" if _needs_reason(event) else text


def _note_text(event: Event, names: _GpuNames) -> str:
    took = event.facts.get("took_s")
    after = f" after {took:g} s" if isinstance(took, int | float) else ""
    gpus = [names.text(gpu) for gpu in texts_in(event.facts.get("gpus"))]
    outcome = outcome_text(event)
    return ", ".join([OUTCOMES.get((event.kind, outcome), outcome) + after, *gpus])


def _needs_reason(event: Event) -> bool:
    """Tell whether the reason says what nothing else in the event's lines does."""
    if event.kind not in NOTE_KINDS:
        return bool(event.reason)
    of_store = event.reason.startswith(STORE_LOST) and bool(event.facts.get("without_store"))
    return bool(event.reason) and not of_store and not dicts_in(event.facts.get("actions"))


def _attempt_text(event: Event, *, show_cluster: bool) -> str:
    kind, _, attempt = parts_of_owner(event)
    if kind != JOB:
        return ""
    of = ATTEMPTS.get(str(event.facts.get(ATTEMPT_FACT, "-")), f" of attempt {attempt}")
    return f"{of} on cluster {cluster_of(event)}" if show_cluster else of


def _action_lines(event: Event) -> Iterator[str]:
    """Yield what the hook did, each after its cause; a cause that stays the same stands once."""
    last_cause = ""
    for one in dicts_in(event.facts.get("actions")):
        what, why, cause = (str(one.get(name) or "") for name in ("what", "why", "cause"))
        if one.get("requeue") is not None:
            what += f", requeue {one['requeue']} of at most {one.get('max_requeues', '?')}"
        if (count := one.get("requeues")) is not None:
            requeues = "requeue" if count == 1 else "requeues"
            what += f" after {count} {requeues}: it waits for 'scontrol release'"
        if cause and cause != last_cause:
            yield cause
        last_cause = cause or last_cause
        yield f"{what or '?'}: {why}" if why else what or "?"


def _shown_gpus(event: Event) -> list[Mapping[str, Any]]:
    """Return the GPUs worth a line: of a job that was refused all those that are not free.

    Of any other job these are its own.
    """
    notable = [
        gpu
        for gpu in dicts_in(event.facts.get("seen"))
        if gpu.get("state") != "free" or gpu.get("who")
    ]
    if event.kind == PROLOG and event.facts.get("outcome") == "refused":
        return notable
    own = texts_in(event.facts.get("gpus"))
    return [gpu for gpu in notable if gpu.get("gpu") in own]


def _scanned_gpu_text(gpu: Mapping[str, Any]) -> str:
    details = [str(gpu.get("state", "unknown"))]
    if "used_mb" in gpu:
        details.append(f"{gpu['used_mb']}MB used")
    details += [str(gpu[name]) for name in ("who", "fault") if gpu.get(name)]
    return f"GPU {gpu.get('place', '?')} ({gpu.get('gpu', '?')}): {', '.join(details)}"


class _GpuNames:
    """The display index of each GPU that a hook's scan saw."""

    def __init__(self, events: Sequence[Event]) -> None:
        self._indices = {
            str(gpu["gpu"]): str(gpu["place"])
            for event in events
            for gpu in dicts_in(event.facts.get("seen"))
            if "gpu" in gpu and "place" in gpu
        }

    def text(self, uuid: str) -> str:
        """Return ``GPU 0 (UUID)``, the UUID alone where the index is not known."""
        return f"GPU {self._indices[uuid]} ({uuid})" if uuid in self._indices else uuid
