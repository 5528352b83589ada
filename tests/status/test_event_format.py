"""Events as lines, and the words of the log."""

from __future__ import annotations

import re

import pytest

from canhazgpu.ledger.values import Claim, Event
from canhazgpu.logfmt import log_line
from canhazgpu.status.event_format import (
    NodeEvent,
    by_time,
    event_line,
    event_to_dict,
)
from canhazgpu.status.history.owner_history import history_lines

CLAIM = Claim("job:c1:12:1", "slurm", "ann", 1000, "12")
SEEN = [
    {"gpu": "GPU-a", "place": "0", "state": "free", "used_mb": 4},
    {"gpu": "GPU-b", "place": "1", "state": "in use", "used_mb": 7000, "who": "bob: PID 7 (x)"},
    {"gpu": "GPU-c", "place": "2", "state": "unknown", "fault": "GPU is lost"},
]


def line(event: Event) -> str:
    text = event_line(NodeEvent("n1", event))
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d n1 ", text)
    return text.partition(" n1 ")[2]


def test_lines() -> None:
    assert line(Event("1-0", 5.0, "grant", "GPU-a", CLAIM)) == "grant GPU-a ann (job 12)"
    released = Event("1-0", 7205.0, "release", "GPU-a", CLAIM, 5.0, "no need", "root")
    assert line(released) == "release GPU-a ann (job 12) after 2h by root: no need"
    manual = Claim("manual:a", "manual", "eve")
    assert line(Event("1-0", 5.0, "wait", "", manual)) == "wait eve (manual)"
    assert line(Event("1-0", 5.0, "quarantine", "GPU-a", reason="hot", by="root")) == (
        "quarantine GPU-a by root: hot"
    )
    told = Event("1-0", 5.0, "prolog", "", CLAIM, reason="x", facts={"outcome": "refused"})
    assert line(told) == "prolog ann (job 12) refused: x"


def test_several_nodes_in_order() -> None:
    events = [
        NodeEvent("n2", Event("9-0", 5.0, "grant")),
        NodeEvent("n1", Event("9-0", 5.0, "grant")),
        NodeEvent("n1", Event("7-0", 9.0, "grant")),
        NodeEvent("n1", Event("8-0", 1.0, "grant")),
    ]
    assert [(one.node, one.event.at) for one in by_time(events)] == [
        ("n1", 1.0),
        ("n1", 5.0),
        ("n2", 5.0),
        ("n1", 9.0),
    ]


def test_json_has_every_key_whatever_is_known() -> None:
    full = event_to_dict(NodeEvent("n1", Event("1-0", 5.0, "grant", "GPU-a", CLAIM)))
    empty = event_to_dict(NodeEvent("n1", Event("1-0", 5.0, "health")))
    assert full.keys() == empty.keys()
    assert empty["user"] is None and empty["gpu"] is None


def test_a_story() -> None:
    facts = {
        "outcome": "refused",
        "took_s": 0.041,
        "gpus": ["GPU-a"],
        "seen": SEEN,
        "without_store": "no answer",
    }
    told = Event("1-0", 5.0, "prolog", "", CLAIM, reason="GPU 1 is in use", facts=facts)
    granted = Event("1-1", 6.0, "release", "GPU-a", CLAIM, 5.0, by="root")
    head, first, *rest = history_lines("n1", [told, granted])
    assert head == "node n1"
    assert first.endswith(
        "prolog of attempt 1: refused after 0.041 s, GPU 0 (GPU-a): GPU 1 is in use"
    )
    assert rest[:3] == [
        "      saw GPU 1 (GPU-b): in use, 7000MB used, bob: PID 7 (x)",
        "      saw GPU 2 (GPU-c): unknown, GPU is lost",
        "      without the store: no answer",
    ]
    assert rest[3].endswith("release of attempt 1: GPU 0 (GPU-a) after 1s, by root")


@pytest.mark.parametrize(
    "facts",
    [
        {"seen": "GPU-a"},
        {"seen": [1, None, {}]},
        {"seen": [{"place": 1}], "gpus": [1, {}], "took_s": "long", "outcome": 7},
        {"gpus": []},
        {"gpus": 5, "seen": 5},
    ],
)
def test_facts_that_somebody_else_wrote_stop_nothing(facts: dict[str, object]) -> None:
    event = Event("1-0", 5.0, "prolog", "", CLAIM, facts=facts)
    assert list(history_lines("n1", [event]))
    assert line(event)


def test_log_lines_can_be_taken_apart_whatever_is_in_them() -> None:
    assert log_line("x", node="n1", gpus=["a", "b"], took_s=0.0412, none=None, n=3, ok=True) == (
        "event=x node=n1 gpus=a,b took_s=0.041 n=3 ok=True"
    )
    assert log_line("x", reason='say "no"') == 'event=x reason="say \\"no\\""'
    assert log_line("x", reason="") == 'event=x reason=""'
    assert log_line("x", reason="a=b") == 'event=x reason="a=b"'
    assert log_line("x", user="eve\nevent=y\x1b[31m\u202e") == 'event=x user="eve event=y [31m"'
