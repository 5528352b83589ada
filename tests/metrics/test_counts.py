"""What is counted of a node's history."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from canhazgpu.allocation.refusal import RefusalKind
from canhazgpu.in_process.grants.refused_requests import (
    FILE,
    METRICS_DIRECTORY,
    OVER_LIMIT,
    TAKEN,
    note_refused,
    take_refused,
)
from canhazgpu.ledger.values import RECORD_ERRORS, Claim, Event
from canhazgpu.metrics.counts import REFUSED_CAUSES, HistoryCounts, counts_from_dict
from canhazgpu.metrics.exposition import exposition
from canhazgpu.metrics.node_series import NodeFacts, node_series

JOB = Claim("job:c:5:0", "slurm", "alice", 1000, job_id="5")
RUN = Claim("run:1", "run", "bob", 1001)


def event(event_id: str, kind: str, claim: Claim | None = JOB, **more: Any) -> Event:
    return Event(event_id, 1.0, kind, claim=claim, **more)


def prolog(event_id: str, **facts: object) -> Event:
    return event(event_id, "prolog", facts=facts)


def told(counts: HistoryCounts) -> dict[tuple[str, ...], float]:
    text = exposition(node_series(NodeFacts("n1", agent_children=3), counts)).decode()
    return {
        (one.name.removeprefix("canhazgpu_"),
         *(value for name, value in sorted(one.labels.items()) if name != "node")): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }  # fmt: skip


def counted(*events: Event) -> dict[tuple[str, ...], float]:
    counts = HistoryCounts()
    counts.add(events)
    return told(counts)


def test_a_grant_of_several_gpus_is_one_grant() -> None:
    found = counted(
        event("1-0", "grant", gpu="a"), event("1-0", "grant", gpu="b"),
        event("2-0", "grant", RUN, gpu="c"), event("3-0", "release", gpu="a"),
        event("4-0", "quarantine", None, gpu="c"),
    )  # fmt: skip
    assert found["grants_total", "job"] == 1
    assert found["granted_gpus_total", "job"] == 2
    assert found["grants_total", "run"] == 1
    assert found["released_gpus_total", "job"] == 1
    assert found["quarantines_total",] == 1


def test_there_are_zeros_before_anything_is_counted() -> None:
    found = counted()
    assert found["grants_total", "manual"] == 0
    assert found["store_outages_total",] == 0
    assert found["hook_duration_seconds_count", "prolog"] == 0
    assert found["agent_children",] == 3


def test_hooks_durations_are_a_histogram() -> None:
    found = counted(
        prolog("1-0", outcome="granted", took_s=0.02), prolog("2-0", outcome="granted", took_s=99),
        prolog("3-0", outcome="granted", took_s=0.05),
        prolog("4-0", took_s=float("nan")), prolog("5-0", took_s="1"), prolog("6-0", took_s=-1),
    )  # fmt: skip
    assert found["hook_duration_seconds_bucket", "prolog", "0.01"] == 0
    assert found["hook_duration_seconds_bucket", "prolog", "0.025"] == 1
    assert found["hook_duration_seconds_bucket", "prolog", "0.05"] == 2
    assert found["hook_duration_seconds_bucket", "prolog", "30.0"] == 2
    assert found["hook_duration_seconds_count", "prolog"] == 3
    assert found["hook_duration_seconds_sum", "prolog"] == pytest.approx(99.07)


def test_refusals_conflicts_and_requeues_have_words_of_ours() -> None:
    conflict = {"cause": "unreserved", "policy": "requeue"}
    found = counted(
        prolog("1-0", outcome="refused", conflict=conflict),
        prolog("2-0", outcome="refused", conflict={**conflict, "failed": True}),
        prolog("3-0", outcome="granted", conflict={"cause": "reserved", "policy": "kill"}),
        prolog("4-0", outcome="granted", conflict={"cause": "gone", "policy": ""}),
        prolog("5-0", outcome="refused", conflict={"cause": "\x1b[31m" * 9, "policy": "rm -rf"}),
        prolog("6-0", outcome="refused", conflict=[1]),
        prolog("7-0", outcome="refused", conflict={"cause": ["x"], "policy": {}}),
    )
    assert found["refusals_total", "unreserved"] == 2
    assert found["refusals_total", "other"] == 3
    assert found["conflicts_total", "reserved", "kill"] == 1
    assert found["conflicts_total", "unreserved", "requeue"] == 2
    assert found["requeues_total",] == 1
    assert {key for key in found if key[0] == "conflicts_total"} == {
        ("conflicts_total", "reserved", "kill"), ("conflicts_total", "unreserved", "requeue"),
    }  # fmt: skip


def test_hooks_that_decide_alone_one_after_the_other_are_one_outage() -> None:
    away = {"outcome": "granted", "without_store": "no answer"}
    found = counted(
        prolog("1-0", **away), prolog("2-0", **away), event("3-0", "epilog", facts=away),
        prolog("4-0", outcome="granted"), prolog("5-0", **away),
    )  # fmt: skip
    assert found["local_decisions_total", "prolog"] == 3
    assert found["local_decisions_total", "epilog"] == 1
    assert found["store_outages_total",] == 2


def test_counts_survive_their_file_and_go_on() -> None:
    counts = HistoryCounts()
    counts.add([prolog("1-0", outcome="granted", took_s=0.02), event("2-0", "grant")])
    again = counts_from_dict(json.loads(json.dumps(counts.to_dict())))
    assert again == counts
    assert again.through == "2-0"
    again.add([event("3-0", "grant")])
    assert told(again)["grants_total", "job"] == 2


@pytest.mark.parametrize(
    "content",
    [{}, [], None, 1, {"through": "", "numbers": [1], "seconds": {}, "outage": False},
     {"through": "", "numbers": [["a", "x"]], "seconds": {}, "outage": False},
     {"through": "", "numbers": [], "seconds": [], "outage": False},
     {"through": "", "numbers": [[]], "seconds": {}, "outage": False}],
)  # fmt: skip
def test_garbage_in_the_file_is_an_error_of_a_record(content: Any) -> None:
    with pytest.raises((*RECORD_ERRORS, AttributeError)):
        counts_from_dict(content)


def test_why_people_are_refused_has_words_of_ours() -> None:
    known = {one.value for one in RefusalKind} | {OVER_LIMIT}
    assert known == set(REFUSED_CAUSES)
    counts = HistoryCounts()
    counts.add_refused({**dict.fromkeys(known, 1), "<b>": 2, "\x1b": 3})
    assert counts.numbers["refused_requests", "other"] == 5
    assert counts.numbers["refused_requests", "busy"] == 1


def test_what_was_noted_is_counted_once_whatever_is_in_the_way(tmp_path: Path) -> None:
    directory = tmp_path / METRICS_DIRECTORY
    note_refused(tmp_path, "busy")
    assert not directory.exists()
    directory.mkdir()
    note_refused(tmp_path, "busy")
    assert take_refused(directory) == {}
    note_refused(tmp_path, "never")
    assert take_refused(directory) == {"busy": 1}
    assert take_refused(directory) == {"never": 1}
    assert take_refused(directory) == {}
    os.mkfifo(directory / FILE)
    note_refused(tmp_path, "busy")
    (directory / TAKEN).write_bytes(b"\xff\xfe " * 10)
    assert set(take_refused(directory)) <= {"\ufffd\ufffd"}
    assert take_refused(directory) == {}
