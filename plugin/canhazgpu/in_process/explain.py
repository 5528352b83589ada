"""What happened to one job, from the history and from this node's own records."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from canhazgpu.errors import InputError, NodeStateError, StoreError, error_text
from canhazgpu.in_process.events import read_events
from canhazgpu.ledger.local.job_records import JobRecords
from canhazgpu.ledger.local.journal import pending_entries
from canhazgpu.node.identity import node_name, state_dir
from canhazgpu.service.history import EventsRequest, ExplainAnswer, JobOnNode

if TYPE_CHECKING:
    from canhazgpu.config import Config
    from canhazgpu.in_process.adapters import Adapters
    from canhazgpu.ledger.journal_entries import JournalEntry
    from canhazgpu.service.history import ExplainRequest
    from canhazgpu.status.event_format import NodeEvent

_JOB = re.compile(r"[0-9]{1,19}([_+][0-9]{1,10})?")


def explain_job(adapters: Adapters, request: ExplainRequest) -> ExplainAnswer:
    """See `NodeService.explain`."""
    config = adapters.effective().config
    job_id = _number(adapters, config, request.job)
    here = _here(adapters, config, job_id)
    fault = None
    told: tuple[NodeEvent, ...] = ()
    try:
        shown = read_events(adapters, EventsRequest(request.since_s, request.nodes))
        told = tuple(one for one in shown.events if _is_of(one, job_id))
    except StoreError as exc:
        # What the node itself knows is worth the more.
        fault = exc
    return ExplainAnswer(job_id, told, here, fault)


def _number(adapters: Adapters, config: Config, job: str) -> str:
    """Return the number under which the job's hooks ran."""
    if not _JOB.fullmatch(job):
        raise InputError(
            f"{job[:40]!r} is not a job's number; accepted: 4711, 4711_3 for a task of an array,"
            " 4711+1 for a component of a heterogeneous job"
        )
    if job.isdecimal():
        return job
    number = adapters.job_lookup(config.slurm, adapters.environ).resolve_job_id(job)
    if number is None:
        raise InputError(
            f"Slurm does not say which job {job} is; name it by its own number:"
            f" 'sacct -X -j {job} -o JobIDRaw' shows it"
        )
    return number


def _is_of(one: NodeEvent, job_id: str) -> bool:
    claim = one.event.claim
    return claim is not None and claim.job_id == job_id


def _here(adapters: Adapters, config: Config, job_id: str) -> JobOnNode:
    """Return what this node has on record of the job, and has not told the store yet."""
    node = node_name(config.node, adapters.environ)
    directory = state_dir(config.node, node)
    record = JobRecords(directory).find(job_id)
    try:
        return JobOnNode(node, record, _pending(directory, node, job_id))
    except NodeStateError as exc:
        # The journal is root's; anybody else is told so.
        return JobOnNode(node, record, None, error_text(exc))


def _pending(directory: Path, node: str, job_id: str) -> tuple[JournalEntry, ...]:
    prefix, infix = "job:", f":{job_id}:"
    return tuple(
        one
        for one in pending_entries(directory, node)
        if one.owner.startswith(prefix) and infix in one.owner
    )
