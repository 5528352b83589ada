"""`canhazgpu admin index`: check, repair and trim the indexes of the store."""

from __future__ import annotations

import json
from typing import Any

import click

from canhazgpu.cli.app import App
from canhazgpu.cli.exit_codes import exit_codes
from canhazgpu.cli.options.common import json_option
from canhazgpu.cli.terminal.output import print_sanitized, sanitized_errors
from canhazgpu.errors import StoreError
from canhazgpu.service.index import IndexAnswer, IndexRequest, IndexTask

EXIT_PROBLEMS = 1


@click.command(
    epilog=exit_codes(
        StoreError, others={EXIT_PROBLEMS: "something differs, or could not be repaired"}
    )
)
@click.option("--check", "check", is_flag=True, help="Say what differs; change nothing.")
@click.option("--repair", "repair", is_flag=True, help="Say what differs, and repair it.")
@click.option(
    "--trim", "trim", is_flag=True, help="Remove entries that are too old to be asked for."
)
@click.option(
    "--node",
    "nodes",
    multiple=True,
    metavar="NODES",
    help="Only what is of these nodes, as n1 or gpu[01-16].  [default: all]",
)
@json_option
@click.pass_context
def index(
    context: click.Context,
    *,
    check: bool,
    repair: bool,
    trim: bool,
    nodes: tuple[str, ...],
    as_json: bool,
) -> None:
    """Compare the store's indexes with the nodes' own records; needs root.

    The indexes say on which nodes a job or a user was, and what was used each day. They
    follow from what each node records, and each node's health check adds what they
    lack; this command recomputes them. It reads each node's whole history, about a
    second for each node with 90 days of it. Running it again does no harm, and nodes
    may go on working.

    With a login for each node ('canhazgpu store acl') nobody but the administrator may
    remove entries, so they stay for ever: let --trim be run once a week. All three take
    the administrator's login, as in --set store.login_file=FILE before the command.

    \b
    Examples:
      canhazgpu --set store.login_file=/root/admin.login admin index --check
      canhazgpu --set store.login_file=/root/admin.login admin index --repair --node gpu07
      canhazgpu --set store.login_file=/root/admin.login admin index --trim
    """  # noqa: D301 - click reads the character: keep these lines
    tasks = {IndexTask.CHECK: check, IndexTask.REPAIR: repair, IndexTask.TRIM: trim}
    given = [task for task, is_given in tasks.items() if is_given]
    if len(given) != 1:
        raise click.UsageError("say what to do: one of --check, --repair and --trim")
    app: App = context.obj
    with sanitized_errors():
        answer = app.service().indexes(IndexRequest(given[0], nodes), app.progress())
    if as_json:
        click.echo(json.dumps(_answer_to_dict(answer), indent=2))
    else:
        for line in _lines(answer):
            print_sanitized(line)
    if not answer.is_good:
        context.exit(EXIT_PROBLEMS)


def _lines(answer: IndexAnswer) -> list[str]:
    if answer.task is IndexTask.TRIM:
        return [
            f"removed {answer.removed_keys} keys and {answer.removed_members} entries of others"
        ]
    lines = [
        f"{one.where}: {one.detail}{' (repaired)' if one.repaired else ''}"
        for one in answer.findings
    ]
    if answer.unmarked:
        some = ", ".join(answer.unmarked[:5])
        more = f" and {len(answer.unmarked) - 5} more" if len(answer.unmarked) > 5 else ""
        lines.append(f"read in full by every question until their next health check: {some}{more}")
    count = len(answer.findings)
    lines.append(f"{answer.nodes} nodes: {f'{count} problems' if count else 'nothing differs'}")
    return lines


def _answer_to_dict(answer: IndexAnswer) -> dict[str, Any]:
    return {
        "task": answer.task.value,
        "nodes": answer.nodes,
        "findings": [
            {"where": one.where, "detail": one.detail, "repaired": one.repaired}
            for one in answer.findings
        ],
        "unmarked": list(answer.unmarked),
        "removed_keys": answer.removed_keys,
        "removed_members": answer.removed_members,
    }
