"""Explain what happened to one owner's GPUs, from the history and this node's own records.

Of a job, the scheduler is asked what comes next.
"""

from __future__ import annotations

import re
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from canhazgpu.errors import InputError, NodeStateError, SchedulerError, StoreError, error_text
from canhazgpu.in_process.events import read_histories
from canhazgpu.ledger.local.book.journal import pending_entries
from canhazgpu.ledger.local.jobs.job_records import JobRecords
from canhazgpu.ledger.owner import job_cluster
from canhazgpu.ledger.store.indexes.hints import is_job_id
from canhazgpu.node.identity import node_name, state_dir
from canhazgpu.schedulers.slurm.conf.cluster_name import owner_cluster_name
from canhazgpu.schedulers.slurm.conf.conf_files import lower_as_slurm
from canhazgpu.schedulers.slurm.conf.node_conf import cluster_of_conf, conf_path
from canhazgpu.service.history import ExplainAnswer, JobOnNode, RecordedJob
from canhazgpu.status.event_format import NodeEvent, by_time
from canhazgpu.status.history.next_steps import Holding
from canhazgpu.status.history.owner_events import events_of_owner

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence, Set

    from canhazgpu.config import Config
    from canhazgpu.in_process.adapters import Adapters
    from canhazgpu.ledger.journal_entries import JournalEntry
    from canhazgpu.ledger.values import Claim, Event, NodeView
    from canhazgpu.service.history import ExplainRequest

_JOB_ID = re.compile(r"[0-9]{1,19}([_+][0-9]{1,10})?")
_OWNER = re.compile(r"(run|manual):[A-Za-z0-9._-]{1,64}")


def explain_owner(adapters: Adapters, request: ExplainRequest) -> ExplainAnswer:
    """See `NodeService.explain`."""
    config = adapters.effective_config().config
    subject, history_days = request.subject, config.store.history_days
    if _OWNER.fullmatch(subject):
        node = node_name(config.node, adapters.environ)
        answer = ExplainAnswer("", JobOnNode(node, None, ()), subject, history_days=history_days)
        return _with_history(adapters, request, answer)
    job_id = _resolve_job_id(adapters, config, subject)
    on_this_node = JobOnNode(node_name(config.node, adapters.environ), None, ())
    answer = ExplainAnswer(job_id, on_this_node, history_days=history_days)
    answer = _with_history(adapters, request, answer)
    return _of_one_cluster(adapters, config, request, answer)


def _of_one_cluster(
    adapters: Adapters, config: Config, request: ExplainRequest, answer: ExplainAnswer
) -> ExplainAnswer:
    """Return the answer for the job of one cluster, with this node's record of it."""
    node = answer.on_this_node.node
    records = JobRecords(state_dir(config.node, node)).find_all(answer.job_id)
    claims = [one.event.claim for one in answer.events if one.event.claim]
    claims += [one.reservation.claim for one in answer.holdings]
    found = {job_cluster(one.owner) for one in claims} | {one.owner.cluster for one in records}
    own = cluster_of_conf(conf_path(adapters.environ))
    cluster = _choose_cluster(request.cluster, own, answer.job_id, sorted(found - {""}))
    answer = replace(
        answer,
        on_this_node=_job_on_this_node(config, node, answer.job_id, cluster),
        events=tuple(one for one in answer.events if _is_of_cluster(one.event.claim, cluster)),
        holdings=tuple(
            one for one in answer.holdings if _is_of_cluster(one.reservation.claim, cluster)
        ),
        other_clusters=tuple(sorted(found - {cluster, ""})) if cluster else (),
    )
    if cluster and cluster != own:
        # The Slurm that could be asked has another job of this number.
        return replace(answer, scheduler_fault=f"it is a job of cluster {cluster}")
    return _with_scheduler(adapters, config, answer)


def _choose_cluster(requested: str, own: str, job_id: str, found: list[str]) -> str:
    """Return the cluster whose job is meant; "" where the number is the only job's."""
    if requested:
        return owner_cluster_name(lower_as_slurm(requested))
    if len(found) < 2:
        return ""
    if own in found:
        return own
    raise InputError(
        f"several clusters have a job {job_id}: name its cluster, as in --cluster {found[0]}"
        f" ({', '.join(found)})"
    )


def _is_of_cluster(claim: Claim | None, cluster: str) -> bool:
    """Return whether the job is the cluster's; any job is where no cluster is named."""
    return not cluster or (claim is not None and job_cluster(claim.owner) == cluster)


def _with_history(
    adapters: Adapters, request: ExplainRequest, answer: ExplainAnswer
) -> ExplainAnswer:
    job_id, owner = answer.job_id or None, answer.owner
    try:
        if job_id and not request.nodes and is_job_id(job_id):
            found = adapters.reader(adapters.effective_config().config).find_job(job_id)
            nodes = [*found.nodes] or [answer.on_this_node.node]
            now, histories = _histories_of_found(adapters, request.since_s, found.days, nodes)
        elif owner and not request.nodes:
            now, histories = _histories_of_owner(adapters, request, answer)
        else:
            now, histories = read_histories(adapters, request.since_s, request.nodes)
    except StoreError as exc:
        # Without the history the node's own records are all there is to show.
        return replace(answer, fault=exc, read_at=time.time())
    events = [
        NodeEvent(view.node, event)
        for view, history in histories
        for event in events_of_owner(history, job_id, owner)
    ]
    holdings = tuple(_holdings((view for view, _ in histories), job_id, owner))
    return replace(answer, events=tuple(by_time(events)), holdings=holdings, read_at=now)


def _histories_of_found(
    adapters: Adapters, since_s: float, days: Mapping[str, Set[int]], nodes: Sequence[str]
) -> tuple[float, list[tuple[NodeView, list[Event]]]]:
    """Return the time, and these nodes with what they told on the days that are given.

    Of nodes whose entries in the index may be incomplete, the whole history is read.
    """
    ledger = adapters.reader(adapters.effective_config().config)
    views = ledger.read_nodes(nodes)
    now = max(view.read_at for view in views)
    histories = []
    for view in views:
        its_days = days.get(view.node)
        if its_days is None:
            events = ledger.history(view.node, now - since_s)
        else:
            events = ledger.history_on(view.node, its_days)
        histories.append((view, [one for one in events if one.at >= now - since_s]))
    return now, histories


def _histories_of_owner(
    adapters: Adapters, request: ExplainRequest, answer: ExplainAnswer
) -> tuple[float, list[tuple[NodeView, list[Event]]]]:
    """Return the time, and the node of a run or manual reservation with what it told.

    Nodes whose entries in the index may be incomplete are read where no other node tells of it.
    """
    owner = answer.owner
    found = adapters.reader(adapters.effective_config().config).find_owner(owner)
    now: float = 0.0
    histories: list[tuple[NodeView, list[Event]]] = []
    others = found.unindexed or (answer.on_this_node.node,)
    for days, nodes in ((found.days, [*found.days]), ({}, others)):
        if nodes:
            now, histories = _histories_of_found(adapters, request.since_s, days, nodes)
        for view, events in histories:
            if events_of_owner(events, None, owner) or any(_holdings([view], None, owner)):
                return now, histories
    return now, histories


def _holdings(views: Iterable[NodeView], job_id: str | None, owner: str) -> Iterable[Holding]:
    for view in views:
        for one in view.all_reservations():
            if one.claim.job_id == job_id if job_id else one.claim.owner == owner:
                yield Holding(view.node, one)


def _with_scheduler(adapters: Adapters, config: Config, answer: ExplainAnswer) -> ExplainAnswer:
    try:
        now = adapters.job_lookup(config.slurm, adapters.environ).job_now(answer.job_id)
    except SchedulerError as exc:
        return replace(answer, scheduler_fault=str(exc))
    users = {one.event.claim.user for one in answer.events if one.event.claim}
    if now is not None and users and now.user not in users:
        # Another cluster's job, or Slurm has given the number again.
        fault = f"the job that has the number {answer.job_id} there is another one, of {now.user}"
        return replace(answer, scheduler_fault=fault)
    return replace(answer, scheduler=now)


def _resolve_job_id(adapters: Adapters, config: Config, job: str) -> str:
    """Return the job id that the job's hooks saw; asks Slurm for ids such as ``4711_3``."""
    if not _JOB_ID.fullmatch(job):
        raise InputError(
            f"{job[:40]!r} is not a job's number; accepted: 4711, 4711_3 for a task of an array,"
            " 4711+1 for a component of a heterogeneous job; or the owner of a run or a manual"
            " reservation, run:… or manual:…, as 'canhazgpu status --json' shows it"
        )
    if job.isdecimal():
        return job
    job_id = adapters.job_lookup(config.slurm, adapters.environ).resolve_job_id(job)
    if job_id is None:
        raise InputError(
            f"Slurm does not say which job {job} is; name it by its own number:"
            f" 'sacct -X -j {job} -o JobIDRaw' shows it where accounting is set up, and"
            " 'canhazgpu events --since 7d' all jobs that had GPUs"
        )
    return job_id


def _job_on_this_node(config: Config, node: str, job_id: str, cluster: str) -> JobOnNode:
    """Return this node's record of the job, and its journal entries that Redis does not have."""
    directory = state_dir(config.node, node)
    record = _recorded_job(directory, job_id, cluster)
    try:
        return JobOnNode(node, record, _pending_entries(directory, node, job_id, cluster))
    except NodeStateError as exc:
        # Only root may read the journal.
        return JobOnNode(node, record, None, error_text(exc))


def _recorded_job(directory: Path, job_id: str, cluster: str) -> RecordedJob | None:
    for one in JobRecords(directory).find_all(job_id):
        if cluster in ("", one.owner.cluster):
            return RecordedJob(one.owner.token, one.user, one.gpus, one.ended, one.epilogs_owed)
    return None


def _pending_entries(
    directory: Path, node: str, job_id: str, cluster: str
) -> tuple[JournalEntry, ...]:
    prefix, infix = f"job:{cluster}:" if cluster else "job:", f":{job_id}:"
    return tuple(
        one
        for one in pending_entries(directory, node)
        if one.owner.startswith(prefix) and infix in one.owner
    )
