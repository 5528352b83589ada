"""What `status --watch` asks for: no more than the terminal shows, and tables when wanted."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest

from canhazgpu.cli.status_display.live_view import LiveView
from canhazgpu.cli.status_display.renderer import StatusRenderer
from canhazgpu.cli.status_display.watch import Size
from canhazgpu.errors import StoreError
from canhazgpu.gpu.scan import GpuReading, Scan
from canhazgpu.gpu.usage import UsagePolicy
from canhazgpu.ledger.values import NodeView
from canhazgpu.service.status import StatusAnswer, StatusRequest
from canhazgpu.status.heads.counts import CountedNode
from canhazgpu.status.node_status import node_status
from canhazgpu.status.summary import summarize

NAMES = [f"gpu{number:02}" for number in range(20)]
GPUS = tuple(GpuReading(place, f"GPU-{place}", place, "H100", 45, 80000) for place in range(2))
NODES = tuple(
    node_status(NodeView(name, 100.0, Scan(name, 99.0, 0.1, GPUS), 99.0), UsagePolicy(1024))
    for name in NAMES
)
COUNTED = tuple(
    CountedNode(summarize(one), one.read_at, 99.0, "nvml", 2, None, None) for one in NODES
)


@dataclass
class Service:
    """Counts the nodes where that suffices."""

    asked: list[StatusRequest] = field(default_factory=list)
    is_away: bool = False

    def status(self, request: StatusRequest) -> StatusAnswer:
        self.asked.append(request)
        if self.is_away:
            raise StoreError("no answer")
        above = request.counts_above
        if above is not None and above < len(NODES):
            return StatusAnswer((), counted=COUNTED)
        return StatusAnswer(NODES)


def live_view(service: Service, height: int | None, **options: Any) -> LiveView:
    renderer = StatusRenderer(watching=True, **options)
    app: Any = SimpleNamespace(service=lambda: service, height=lambda: height, width=lambda: 100)
    request = StatusRequest(
        brief_above=renderer.brief_above(height), counts_above=renderer.counts_above(height)
    )
    return LiveView(app, request, renderer, 2.0)


SUMMARY = [f"{name}  2 GPUs  2 free  (scanned 1s ago)" for name in NAMES]


@pytest.mark.parametrize("options", [{}, {"summary": True}])
def test_a_terminal_without_room_is_shown_counts(options: dict[str, Any]) -> None:
    service = Service()
    frame = live_view(service, 24, **options).read_frame()
    assert list(frame.lines(Size(100, 22))) == SUMMARY
    assert len(service.asked) == 1


def test_tables_are_read_when_they_are_wanted_and_once() -> None:
    service = Service()
    view = live_view(service, 24)
    frame = view.read_frame()
    frame.lines(Size(100, 22))
    view.toggle_layout()
    tables = list(frame.lines(Size(100, 22)))
    assert tables[0] == "gpu00 (scanned 1s ago)"
    assert (service.asked[-1].brief_above, service.asked[-1].counts_above) == (None, None)
    view.toggle_layout()
    assert list(frame.lines(Size(100, 22))) == SUMMARY
    assert len(service.asked) == 2


def test_a_larger_terminal_has_the_tables_read() -> None:
    service = Service()
    frame = live_view(service, 24).read_frame()
    assert list(frame.lines(Size(100, 22))) == SUMMARY
    assert next(iter(frame.lines(Size(100, 200)))) == "gpu00 (scanned 1s ago)"
    assert len(service.asked) == 2


def test_the_summary_stays_where_tables_cannot_be_read() -> None:
    service = Service()
    view = live_view(service, 24)
    frame = view.read_frame()
    frame.lines(Size(100, 22))
    view.toggle_layout()
    service.is_away = True
    assert list(frame.lines(Size(100, 22))) == SUMMARY


def test_what_is_counted_and_what_is_judged_is_the_same_to_a_watch() -> None:
    """Otherwise a pipe would get a new block whenever a node becomes plain."""
    renderer = StatusRenderer(watching=True, summary=True)
    mixed = StatusAnswer(NODES[::2], counted=COUNTED[1::2])
    key = renderer.comparison_key(StatusAnswer(NODES))
    assert renderer.comparison_key(mixed) == key
    other = replace(COUNTED[1], counts=replace(COUNTED[1].counts, available=1))
    changed = StatusAnswer(NODES[::2], counted=(other, *COUNTED[3::2]))
    assert renderer.comparison_key(changed) != key


def test_a_pipe_gets_tables() -> None:
    service = Service()
    frame = live_view(service, None).read_frame()
    assert next(iter(frame.lines(None))) == "gpu00 (scanned 1s ago)"
    assert len(service.asked) == 1
