"""`canhazgpu explain`: what happened to one job, and why."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from canhazgpu.cli.app import App
from canhazgpu.cli.events import read_events
from canhazgpu.cli.options import json_option
from canhazgpu.durations import parse_duration
from canhazgpu.errors import InputError, NodeStateError, StoreError, explain
from canhazgpu.node.identity import node_name, state_dir

if TYPE_CHECKING:
    from canhazgpu.config import Config
    from canhazgpu.status.event_text import NodeEvent

DEFAULT_SINCE = "7d"
_JOB = re.compile(r"[0-9]{1,19}([_+][0-9]{1,10})?")


@click.command("explain")
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
    back_s = parse_duration(since)
    config = app.effective().config
    job_id = _number(app, config, job_id)
    here = _here(app, config, job_id)
    fault = None
    told: list[NodeEvent] = []
    try:
        shown = read_events(app, config, tuple(dict.fromkeys(nodes)), back_s)
        told = [one for one in shown.events if _is_of(one, job_id)]
    except StoreError as exc:
        # What the node itself knows is worth the more.
        fault = exc
    if as_json:
        click.echo(json.dumps(_json(job_id, told, here), indent=2))
    else:
        _print(job_id, told, here)
    if fault is not None:
        raise fault
    if not told and not here["record"] and not as_json:
        raise InputError(f"nothing is known of job {job_id} in the last {since}; see --since")


def _number(app: App, config: Config, job: str) -> str:
    """Return the number under which the job's hooks ran."""
    if not _JOB.fullmatch(job):
        raise InputError(
            f"{job[:40]!r} is not a job's number; accepted: 4711, 4711_3 for a task of an array,"
            " 4711+1 for a component of a heterogeneous job"
        )
    if job.isdecimal():
        return job
    number = app.job_lookup(config.slurm, app.environ).number_of(job)
    if number is None:
        raise InputError(
            f"Slurm does not say which job {job} is; name it by its own number:"
            f" 'sacct -X -j {job} -o JobIDRaw' shows it"
        )
    return number


def _is_of(one: NodeEvent, job_id: str) -> bool:
    claim = one.event.claim
    return claim is not None and claim.job_id == job_id


def _here(app: App, config: Config, job_id: str) -> dict[str, Any]:
    """Return what this node has on record of the job, and has not told the store yet."""
    from canhazgpu.node.records import JobRecords  # noqa: PLC0415

    node = node_name(config.node, app.environ)
    place = state_dir(config.node, node)
    record = JobRecords(place).find(job_id)
    known = None
    if record is not None:
        known = {
            "owner": record.owner.token,
            "user": record.user,
            "gpus": [{"gpu": gpu.uuid, "position": gpu.position} for gpu in record.gpus],
            "ended": record.ended,
            "epilogs_owed": record.epilogs_owed,
        }
    return {"node": node, "record": known, **_pending(place, node, job_id)}


def _pending(place: Any, node: str, job_id: str) -> dict[str, Any]:
    from canhazgpu.ledger.entries import entry_to_dict  # noqa: PLC0415
    from canhazgpu.node.journal import pending_entries  # noqa: PLC0415

    try:
        entries = pending_entries(place, node)
    except NodeStateError as exc:
        # The journal is root's; anybody else is told so.
        return {"pending": None, "pending_fault": explain(exc)}
    prefix, infix = "job:", f":{job_id}:"
    own = [one for one in entries if one.owner.startswith(prefix) and infix in one.owner]
    return {"pending": [entry_to_dict(one) for one in own], "pending_fault": None}


def _json(job_id: str, told: Sequence[NodeEvent], here: dict[str, Any]) -> dict[str, Any]:
    from canhazgpu.status.event_text import event_to_dict  # noqa: PLC0415

    return {"job_id": job_id, "events": [event_to_dict(one) for one in told], "here": here}


def _print(job_id: str, told: Sequence[NodeEvent], here: dict[str, Any]) -> None:
    from canhazgpu.cli.terminal_text import printable  # noqa: PLC0415

    for line in _lines(job_id, told, here):
        click.echo(printable(line))


def _lines(job_id: str, told: Sequence[NodeEvent], here: dict[str, Any]) -> Iterator[str]:
    from canhazgpu.status.event_text import story_lines  # noqa: PLC0415

    users = {one.event.claim.user for one in told if one.event.claim}
    yield f"job {job_id}" + (f" of {', '.join(sorted(users))}" if users else "")
    for node in sorted({one.node for one in told}):
        yield from story_lines(node, [one.event for one in told if one.node == node])
    record = here["record"]
    if record is not None:
        state = "over, not told to the store yet" if record["ended"] else "not over"
        gpus = ", ".join(gpu["gpu"] for gpu in record["gpus"]) or "no GPUs"
        yield f"on record on {here['node']}: {record['owner']}, {gpus}, {state}"
    if here["pending"]:
        kinds = ", ".join(one["kind"] for one in here["pending"])
        yield f"the store has not heard yet from {here['node']}: {kinds}"
