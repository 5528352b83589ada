"""What the agent is asked for the page of a user who has no login of the store.

These are no commands of the program: the agent alone has them. They answer with values, one a line,
see `canhazgpu.service.answer_json`. An error of canhazgpu is such a value, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import click

from canhazgpu.cli.app import App
from canhazgpu.errors import CanhazgpuError
from canhazgpu.service.answer_json import encoded
from canhazgpu.service.history import ExplainRequest, ReportRequest
from canhazgpu.service.status import StatusRequest

PAGE = "page"


@click.group(PAGE, hidden=True)
def page_answers() -> None:
    """Answer what a page asks."""


@page_answers.command("status")
@click.option("--node", "nodes", multiple=True)
@click.option("--brief-above", type=click.IntRange(min=0))
@click.pass_obj
def status(app: App, /, nodes: Sequence[str], brief_above: int | None) -> None:
    """Write the nodes as they were last published, some at a time; nothing is scanned."""
    request = StatusRequest(tuple(nodes), brief_above=brief_above, scans=False)
    _write_all(app.service().status_pages(request))


@page_answers.command("explain")
@click.argument("subject")
@click.option("--since", "since_s", type=click.FloatRange(min=0), required=True)
@click.option("--cluster", default="")
@click.pass_obj
def explain(app: App, /, subject: str, since_s: float, cluster: str) -> None:
    """Write what happened to a job, a run or a manual reservation."""
    request = ExplainRequest(subject, since_s, (), cluster)
    with _error_as_answer():
        _write(app.service().explain(request))


@page_answers.command("report")
@click.option("--days", type=click.IntRange(min=1), required=True)
@click.pass_obj
def report(app: App, /, days: int) -> None:
    """Write who used how many GPU hours."""
    with _error_as_answer():
        _write(app.service().report(ReportRequest(days)))


@page_answers.command("counters")
@click.pass_obj
def counters(app: App, /) -> None:
    """Write what the nodes have counted, some nodes at a time."""
    _write_all(app.service().counters())


def _write_all(answers: Iterator[object]) -> None:
    with _error_as_answer():
        for answer in answers:
            _write(answer)


@contextmanager
def _error_as_answer() -> Iterator[None]:
    try:
        yield
    except CanhazgpuError as exc:
        _write(exc)


def _write(answer: object) -> None:
    click.echo(encoded(answer))
