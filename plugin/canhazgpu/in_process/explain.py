"""Explain what happened to one job, from the history and from this node's own records."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from canhazgpu.errors import InputError, NodeStateError, StoreError, error_text
from canhazgpu.in_process.events import read_events
from canhazgpu.ledger.local.job_records import JobRecords
from canhazgpu.ledger.local.journal import pending_entries
from canhazgpu.node.identity import node_name, state_dir
from canhazgpu.service.history import EventsRequest, ExplainAnswer, JobOnNode, RecordedJob

if TYPE_CHECKING:
    from canhazgpu.config import Config
    from canhazgpu.in_process.adapters import Adapters
    from canhazgpu.ledger.journal_entries import JournalEntry
    from canhazgpu.service.history import ExplainRequest
    from canhazgpu.status.event_format import NodeEvent

_JOB_ID = re.compile(r"[0-9]{1,19}([_+][0-9]{1,10})?")


def explain_job(adapters: Adapters, request: ExplainRequest) -> ExplainAnswer:
    """See `NodeService.explain`."""
    config = adapters.effective_config().config
    job_id = _resolve_job_id(adapters, config, request.job)
    on_this_node = _job_on_this_node(adapters, config, job_id)
    fault = None
    events: tuple[NodeEvent, ...] = ()
    try:
        answer = read_events(adapters, EventsRequest(request.since_s, request.nodes))
        events = tuple(one for one in answer.events if _is_about_job(one, job_id))
    except StoreError as exc:
        # Without the history the node's own records are all there is to show.
        fault = exc
    return ExplainAnswer(job_id, events, on_this_node, fault)


def _resolve_job_id(adapters: Adapters, config: Config, job: str) -> str:
    """Return the job id that the job's hooks saw; asks Slurm for ids such as ``4711_3``."""
    if not _JOB_ID.fullmatch(job):
        raise InputError(
            f"{job[:40]!r} is not a job's number; accepted: 4711, 4711_3 for a task of an array,"
            " 4711+1 for a component of a heterogeneous job"
        )
    if job.isdecimal():
        return job
    job_id = adapters.job_lookup(config.slurm, adapters.environ).resolve_job_id(job)
    if job_id is None:
        raise InputError(
            f"Slurm does not say which job {job} is; name it by its own number:"
            f" 'sacct -X -j {job} -o JobIDRaw' shows it"
        )
    return job_id


def _is_about_job(one: NodeEvent, job_id: str) -> bool:
    claim = one.event.claim
    return claim is not None and claim.job_id == job_id


def _job_on_this_node(adapters: Adapters, config: Config, job_id: str) -> JobOnNode:
    """Return this node's record of the job, and its journal entries that Redis does not have."""
    node = node_name(config.node, adapters.environ)
    directory = state_dir(config.node, node)
    record = _recorded_job(directory, job_id)
    try:
        return JobOnNode(node, record, _pending_entries(directory, node, job_id))
    except NodeStateError as exc:
        # Only root may read the journal.
        return JobOnNode(node, record, None, error_text(exc))


def _recorded_job(directory: Path, job_id: str) -> RecordedJob | None:
    record = JobRecords(directory).find(job_id)
    if record is None:
        return None
    owner = record.owner.token
    return RecordedJob(owner, record.user, record.gpus, record.ended, record.epilogs_owed)


def _pending_entries(directory: Path, node: str, job_id: str) -> tuple[JournalEntry, ...]:
    prefix, infix = "job:", f":{job_id}:"
    return tuple(
        one
        for one in pending_entries(directory, node)
        if one.owner.startswith(prefix) and infix in one.owner
    )
