"""What a job made of its GPUs, as people read it."""

from __future__ import annotations

from typing import Any

import pytest

from canhazgpu.gpu.use_text import use_texts
from canhazgpu.ledger.journal_entries import EPILOG, RELEASE, USE
from canhazgpu.ledger.values import Claim, Event
from canhazgpu.status.event_format import NodeEvent, event_line
from canhazgpu.status.history.owner_history import history_lines

NOW = 1_700_000_000.0


def test_each_gpu_has_a_text() -> None:
    use = {
        "driver": [["0", 72704, 81559, 83], ["1", None, 81559, None], ["2:1", None, None, 5]],
        "scans": [["3", 7200, 14400]],
    }
    assert list(use_texts(use)) == [
        "GPU 0: peak 71 of 80 GB, 83 % busy",
        "GPU 1: never used",
        "GPU 2:1: 5 % busy",
        "GPU 3: unused for 2h of 4h, by scans",
    ]


@pytest.mark.parametrize(
    "use",
    [None, 1, "x", [], {"driver": 1}, {"driver": [1, [], [1, 2, 3, 4]]}, {"scans": [["0"]]},
     {"scans": [["0", "x", {}]]}, {"driver": [["\x1b[31m", 1, 2, 3]]},
     {"driver": [["0" * 1000, 1, 2, 3]]}],
)  # fmt: skip
def test_anything_else_is_left_out(use: Any) -> None:
    assert list(use_texts(use)) == []


def released(owner: str, idle_s: float, held_s: float | None = 14400.0) -> Event:
    claim = Claim(owner, owner.partition(":")[0], "ann")
    granted_at = None if held_s is None else NOW - held_s
    return Event("1-0", NOW, RELEASE, "GPU-0", claim, granted_at, idle_s=idle_s)


@pytest.mark.parametrize("owner", ["manual:1", "run:1", "job:c:1:0"])
def test_a_release_says_for_how_long_scans_found_the_gpu_unused(owner: str) -> None:
    *_, line = history_lines("n1", [released(owner, 7200.0)])
    assert line == "      unused for 2h of 4h, by scans"


@pytest.mark.parametrize("event", [
    released("run:1", 0.0), released("run:1", 5.0, None), released("run:1", 1e18),
    released("run:1", float("nan")), released("run:1", -5.0),
])  # fmt: skip
def test_nothing_is_said_of_no_idle_time_or_an_impossible_one(event: Event) -> None:
    assert not [one for one in history_lines("n1", [event]) if "unused" in one]


@pytest.mark.parametrize("kind", [EPILOG, USE])
def test_where_a_note_tells_more_the_release_does_not(kind: str) -> None:
    first = released("run:1", 7200.0)
    facts = {"use": {"driver": [["0", 72704, 81559, 83]]}}
    note = Event("2-0", NOW, kind, claim=first.claim, facts=facts)
    lines = list(history_lines("n1", [first, note]))
    assert [one for one in lines if "unused" in one] == []
    assert lines[-1] == "      GPU 0: peak 71 of 80 GB, 83 % busy"


def test_the_use_of_a_run_is_an_event_of_its_own() -> None:
    facts = {"use": {"driver": [["0", 72704, 81559, 83], ["1", None, 81559, None]]}}
    note = Event("2-0", NOW, USE, claim=Claim("run:1", "run", "ann"), facts=facts)
    line = event_line(NodeEvent("n1", note))
    assert line.endswith(" GPU 0: peak 71 of 80 GB, 83 % busy, GPU 1: never used")
    assert " use " in line
