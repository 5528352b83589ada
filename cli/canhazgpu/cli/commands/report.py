"""`canhazgpu report`: show who used how many GPU hours."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

import click

from canhazgpu.cli.app import App
from canhazgpu.cli.exit_codes import exit_codes
from canhazgpu.cli.options.common import json_option, nodes_option
from canhazgpu.errors import StoreError
from canhazgpu.garbage_collection import paused_collector
from canhazgpu.service.history import ReportRequest

if TYPE_CHECKING:
    from canhazgpu.report.totals import Report

DEFAULT_DAYS = 7
CSV_ROWS_PER_PIECE = 1000


@click.command(epilog=exit_codes(StoreError))
@click.option(
    "--days",
    type=click.IntRange(1, 3650),
    default=DEFAULT_DAYS,
    show_default=True,
    metavar="N",
    help="Report on today and so many days before it (days of UTC).",
)
@click.option(
    "--user",
    "users",
    metavar="NAME",
    multiple=True,
    help="Report on this user only; may be given several times.  [default: all]",
)
@nodes_option("Report on")
@click.option(
    "--wasted",
    is_flag=True,
    help="Show the hours in which GPUs did not compute, those first who wasted most.",
)
@json_option
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV, a row for each user on each node.")
@click.pass_obj
def report(
    app: App,
    days: int,
    users: Sequence[str],
    nodes: Sequence[str],
    wasted: bool,
    as_json: bool,
    as_csv: bool,
) -> None:
    """Show who had GPUs reserved, for how long, and how much of that they were idle.

    A reservation counts for its part inside the days reported on, also one that began
    before or still runs. One that has several GPUs is one reservation; its GPU hours are
    those of all of them. Shares are of everybody's GPU hours on these nodes.

    IDLE HOURS are those for which scans found a GPU reserved and unused, of what still
    runs too; nobody scans between grants, published scans and health checks.

    MEAN USE is for how much of the time the GPUs of ended jobs computed, and PEAK MEMORY how
    much of their memory was in use at the most, both in the mean of their GPU hours, where the
    driver's accounting is on (validation.accounting). With --wasted, WASTED are the hours in
    which they did not compute, and the idle hours of what the driver does not tell of.

    \b
    Examples:
      canhazgpu report
      canhazgpu report --days 30 --user alice
      canhazgpu report --wasted
      canhazgpu report --node gpu01 --csv > gpu01.csv
      canhazgpu report --json | jq '.users[] | {user, gpu_hours}'
    """  # noqa: D301 - click reads the character: keep these lines
    if as_json and as_csv:
        raise click.UsageError("--json and --csv exclude each other: give one of them")
    answer = app.service().report(ReportRequest(days, tuple(users), tuple(nodes), wasted))
    kept, found = answer.history_days, answer.report
    if days > kept:
        click.echo(f"The history is kept for {kept} days (store.history_days).", err=True)
    if not as_json and not as_csv:
        _print_table(app, found, days)
        return
    with paused_collector():
        for text in _json_texts(found) if as_json else _csv_texts(found):
            click.echo(text, nl=False)


def _json_texts(found: Report) -> Iterator[str]:
    from canhazgpu.report.json_text import report_json_text  # noqa: PLC0415 - only with --json

    yield from report_json_text(found)
    yield "\n"


def _csv_texts(found: Report) -> Iterator[str]:
    from canhazgpu.cli.terminal.text import printable  # noqa: PLC0415 - not with --json
    from canhazgpu.report.export import report_rows  # noqa: PLC0415 - only with --csv

    rows = report_rows(found, printable)
    while some := list(islice(rows, CSV_ROWS_PER_PIECE)):
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(some)
        yield text.getvalue()


def _print_table(app: App, found: Report, days: int) -> None:
    from canhazgpu.cli.terminal.text import printable  # noqa: PLC0415 - not with --json
    from canhazgpu.report.tables import report_lines  # noqa: PLC0415

    if not found.by_user:
        click.echo(f"No reservations in the last {days} days.")
        return
    click.echo("\n".join(report_lines(found, app.width(), printable)))
