"""`canhazgpu explain`: show what happened to one job, and why."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import click

from canhazgpu.cli.app import App
from canhazgpu.cli.exit_codes import exit_codes
from canhazgpu.cli.options.common import json_option
from canhazgpu.durations import parse_duration
from canhazgpu.errors import InputError, NodeStateError, StoreError
from canhazgpu.service.history import ExplainAnswer, ExplainRequest, JobOnNode, RecordedJob

DEFAULT_SINCE = "7d"


@click.command("explain", epilog=exit_codes(StoreError, NodeStateError))
@click.argument("job_id", metavar="JOBID")
@click.option(
    "--node",
    "nodes",
    metavar="NAME",
    multiple=True,
    help="Look at this node only; may be given several times.  [default: all that are known]",
)
@click.option(
    "--since",
    metavar="TIME",
    default=DEFAULT_SINCE,
    show_default=True,
    help="Go back so far, as 2h or 30d.",
)
@json_option
@click.pass_obj
def explain_job(app: App, job_id: str, nodes: Sequence[str], since: str, as_json: bool) -> None:
    """Show what happened to a Slurm job's GPUs, and why.

    When its prolog ran on each node, what it saw, what it granted or why not, and what
    its epilog found; and what this node itself has on record of the job. A task of an array
    and a component of a heterogeneous job have numbers of their own, which Slurm is asked for.

    \b
    Examples:
      canhazgpu explain 4711
      canhazgpu explain 4711_3       # task 3 of array 4711
      canhazgpu explain 4711+1       # component 1 of heterogeneous job 4711
      canhazgpu explain 4711 --node gpu01 --json
    """  # noqa: D301 - click reads the character: keep these lines
    since_s = parse_duration(since)
    answer = app.service().explain(ExplainRequest(job_id, since_s, tuple(nodes)))
    if as_json:
        click.echo(json.dumps(_answer_to_dict(answer), indent=2))
    else:
        _print_text(answer)
    if answer.fault is not None:
        raise answer.fault
    if not answer.events and answer.on_this_node.record is None and not as_json:
        raise InputError(
            f"nothing is known of job {answer.job_id} in the last {since}; see --since"
        )


def _answer_to_dict(answer: ExplainAnswer) -> dict[str, Any]:
    from canhazgpu.status.event_format import event_to_dict  # noqa: PLC0415

    return {
        "job_id": answer.job_id,
        "events": [event_to_dict(one) for one in answer.events],
        "here": _node_to_dict(answer.on_this_node),
    }


def _node_to_dict(job: JobOnNode) -> dict[str, Any]:
    from canhazgpu.ledger.journal_entries import entry_to_dict  # noqa: PLC0415

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


def _print_text(answer: ExplainAnswer) -> None:
    from canhazgpu.cli.terminal.text import printable  # noqa: PLC0415

    for line in _text_lines(answer):
        click.echo(printable(line))


def _text_lines(answer: ExplainAnswer) -> Iterator[str]:
    from canhazgpu.status.event_format import job_history_lines  # noqa: PLC0415

    events, job = answer.events, answer.on_this_node
    users = {one.event.claim.user for one in events if one.event.claim}
    yield f"job {answer.job_id}" + (f" of {', '.join(sorted(users))}" if users else "")
    for node in sorted({one.node for one in events}):
        yield from job_history_lines(node, [one.event for one in events if one.node == node])
    if job.record is not None:
        state = "over, not told to the store yet" if job.record.ended else "not over"
        gpus = ", ".join(gpu.uuid for gpu in job.record.gpus) or "no GPUs"
        yield f"on record on {job.node}: {job.record.owner}, {gpus}, {state}"
    if job.pending:
        kinds = ", ".join(one.kind for one in job.pending)
        yield f"the store has not heard yet from {job.node}: {kinds}"
