"""Print the status once: in whole, page by page, or as a frame of another process' live view."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from canhazgpu.errors import ScanError, StoreError

if TYPE_CHECKING:
    from canhazgpu.cli.app import App
    from canhazgpu.cli.status_display.renderer import StatusRenderer
    from canhazgpu.errors import CanhazgpuError
    from canhazgpu.service.status import StatusAnswer, StatusRequest


def print_stream(app: App, request: StatusRequest, renderer: StatusRenderer) -> None:
    """Print each node as soon as it is read; raises as `print_once`, after what could be read."""
    pages = _Pages(app, request, renderer)
    for answer in pages:
        if lines := [*renderer.node_lines(answer)]:
            click.echo("\n".join(lines))
    pages.raise_faults()


def print_document(app: App, request: StatusRequest, renderer: StatusRenderer) -> None:
    """Print the JSON of all nodes, of which few are in memory as more than text."""
    pages = _Pages(app, request, renderer)
    texts: list[str] = []
    about = None
    try:
        for answer in pages:
            texts += filter(None, [",".join(renderer.node_texts(answer))])
            about = about or answer
            if answer.book_fault is not None:
                # This node's page need not be the first.
                about = replace(about, book_fault=answer.book_fault)
    except StoreError:
        # Nothing is printed yet: this node alone, if it is one.
        print_once(app, request, renderer)
        return
    if not pages.lack_store:
        pages.refuse_unknown()
    if about is not None:
        begin, end = renderer.document_around(about)
        click.echo(begin, nl=False)
        for place, text in enumerate(texts):
            click.echo(f",{text}" if place else text, nl=False)
        click.echo(end)
    pages.raise_faults()


class _Pages:
    """The answers page by page; what they lack is raised when all have been shown."""

    def __init__(self, app: App, request: StatusRequest, renderer: StatusRenderer) -> None:
        from canhazgpu.status.status_filter import StatusFilter  # noqa: PLC0415 - as below
        from canhazgpu.status.unknown_values import KnownValues  # noqa: PLC0415 - only for pages

        self._answers = app.service().status_pages(request)
        self._known = KnownValues(renderer.filter or StatusFilter())
        self._faults: list[CanhazgpuError] = []

    def __iter__(self) -> Iterator[StatusAnswer]:
        count = 0
        for answer in self._answers:
            self._known.add(answer.nodes, (*answer.texts, *answer.passed_over))
            count += answer.node_count
            self._faults += _faults(answer, count)
            yield answer

    @property
    def lack_store(self) -> bool:
        """Whether the store did not serve: nobody knows then what other nodes have."""
        return any(isinstance(one, StoreError) for one in self._faults)

    def refuse_unknown(self) -> None:
        """Raise `InputError` where the filter names what no node knows."""
        self._known.refuse_unknown()

    def raise_faults(self) -> None:
        """Raise the first error, and before it that of a filter that nothing can meet."""
        if not self.lack_store:
            self.refuse_unknown()
        for fault in self._faults:
            raise fault


def print_frame(
    app: App, request: StatusRequest, renderer: StatusRenderer, size: tuple[int, int]
) -> None:
    """Print one frame of a live view that another process shows."""
    from canhazgpu.cli.status_display.live_view import LiveView  # noqa: PLC0415 - only for a view
    from canhazgpu.cli.status_display.watch import Size  # noqa: PLC0415

    click.echo(json.dumps(LiveView(app, request, renderer, 0.0).shown(Size(*size))))


def print_once(app: App, request: StatusRequest, renderer: StatusRenderer) -> None:
    """Print all of it; raises as `NodeService.status`, and after it what it lacks."""
    answer = app.service().status(request)
    renderer.refuse_unknown_values(answer)
    # The prompt takes a line. Nodes that were asked for by name are shown as they are.
    height = None if request.nodes else app.height()
    room = None if height is None else height - 1
    click.echo("\n".join(renderer.lines(answer, app.width(), room)))
    if renderer.summary is None and not renderer.as_json and renderer.is_summary(answer, room):
        click.echo(
            f"(the tables take {renderer.tables_height(answer)} lines: --no-summary, --node or a"
            " pipe shows them)"
        )
    for fault in _faults(answer, answer.node_count):
        raise fault


def _faults(answer: StatusAnswer, shown: int) -> Iterator[CanhazgpuError]:
    """Yield the errors by which a command ends that could not show everything."""
    if answer.store_fault or answer.book_fault:
        from canhazgpu.cli.status_display.missing import missing_error  # noqa: PLC0415 - rarely needed

        if (missing := missing_error(answer)) is not None:
            yield missing
    if shown == 1 and answer.scan_fault:
        yield ScanError(answer.scan_fault)
