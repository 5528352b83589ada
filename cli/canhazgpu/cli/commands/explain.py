"""`canhazgpu explain`: show what happened to one job, run or manual reservation, and why."""

from __future__ import annotations

import json
from collections.abc import Sequence

import click

from canhazgpu.cli.app import App
from canhazgpu.cli.exit_codes import exit_codes
from canhazgpu.cli.options.common import json_option
from canhazgpu.durations import parse_duration
from canhazgpu.errors import InputError, NodeStateError, StoreError
from canhazgpu.service.history import ExplainRequest

DEFAULT_SINCE = "7d"


@click.command("explain", epilog=exit_codes(StoreError, NodeStateError))
@click.argument("subject", metavar="JOBID")
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
@click.option(
    "--cluster",
    default="",
    metavar="NAME",
    help="The job's cluster, where several have its number.  [default: that of slurm.conf]",
)
@json_option
@click.pass_obj
def explain_job(
    app: App, subject: str, *, nodes: Sequence[str], since: str, cluster: str, as_json: bool
) -> None:
    """Show what happened to a job's GPUs, why, and what comes next.

    When its prolog ran on each node, what it saw, what it granted or why not, what was done
    about it, and what its epilog found; what this node itself has on record of the job; and what
    Slurm says of it now. A task of an array and a component of a heterogeneous job have numbers of
    their own, which Slurm is asked for. Runs and manual reservations are named by their owner,
    as 'canhazgpu status --json' shows it.

    \b
    Examples:
      canhazgpu explain 4711
      canhazgpu explain 4711_3       # task 3 of array 4711
      canhazgpu explain 4711+1       # component 1 of heterogeneous job 4711
      canhazgpu explain 4711 --node gpu01 --json
      canhazgpu explain run:9f86d081884c7d65
    """  # noqa: D301 - click reads the character: keep these lines
    since_s = parse_duration(since)
    answer = app.service().explain(ExplainRequest(subject, since_s, tuple(nodes), cluster))
    from canhazgpu.cli.terminal.explanation import (  # noqa: PLC0415 - not for the help
        answer_lines,
        answer_to_dict,
        unknown_owner_text,
    )
    from canhazgpu.cli.terminal.text import printable  # noqa: PLC0415

    if as_json:
        click.echo(json.dumps(answer_to_dict(answer), indent=2))
    elif answer.is_known or answer.scheduler is not None:
        for line in answer_lines(answer):
            click.echo(printable(line))
    if answer.other_clusters:
        others = ", ".join(answer.other_clusters)
        click.echo(f"canhazgpu: jobs of this number also in: {others}; see --cluster", err=True)
    if answer.fault is not None:
        raise answer.fault
    if not as_json and not answer.is_known:
        raise InputError(unknown_owner_text(answer, since))
