"""The cluster's metrics, read by the library's own parser."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from canhazgpu.gpu.scan import GpuProcess, GpuReading, Scan
from canhazgpu.gpu.usage import UsagePolicy
from canhazgpu.ledger.journal_entries import PROLOG
from canhazgpu.ledger.values import Claim, Event, NodeView, Quarantine, Reservation, Waiter
from canhazgpu.metrics.counts import HistoryCounts, published_counts
from canhazgpu.metrics.exposition import cluster_metrics, node_metrics
from canhazgpu.metrics.gpu_series import MAX_USERS
from canhazgpu.metrics.label_value import MAX_LABEL, OTHERS
from canhazgpu.metrics.node_series import NodeFacts
from canhazgpu.status.node_status import node_status

NOW = 1_700_000_000.0
JOB = Claim("job:c:5:0", "slurm", "alice", 1000, job_id="5", job_name="train")
HOSTILE = '\x1b[31m\u202e<b>"\\\n\ud800' + "x" * (1 << 20)


def gpu(index: int, *processes: GpuProcess, used_mb: int | None = 0) -> GpuReading:
    return GpuReading(
        index, f"GPU-{index}", index, "H100", used_mb, 80_000, processes, utilization_percent=50
    )


def process(user: str | None, pid: int = 7) -> GpuProcess:
    return GpuProcess(pid, 1001, user, "python", 4000)


VIEW = NodeView(
    "n1",
    NOW,
    Scan(
        "n1", 0.0, 0.1,
        (gpu(0, used_mb=4000), gpu(1, process("bob"), used_mb=4000), gpu(2), gpu(3),
         replace(gpu(4), fault="lost")),
    ),
    NOW - 30,
    {"GPU-0": Reservation("GPU-0", JOB, NOW - 100, idle_s=40.0)},
    {},
    {"GPU-2": Quarantine("GPU-2", "fan", NOW - 100, "root")},
    (
        Waiter("run:1", "carol", 5, 2, since=NOW - 90, renewed_at=NOW),
        Waiter("run:2", "carol", 5, 1, since=NOW - 10, renewed_at=NOW),
    ),
)  # fmt: skip


def samples(view: NodeView) -> dict[tuple[str, ...], float]:
    """Return the values by name and values of labels, in the order of the labels' names."""
    text = cluster_metrics([node_status(view, UsagePolicy(1024))]).decode()
    return {
        (one.name.removeprefix("canhazgpu_"), *(one.labels[name] for name in sorted(one.labels))):
        one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }  # fmt: skip


def test_every_gpu_has_its_state_its_holder_and_its_readings() -> None:
    found = samples(VIEW)
    assert found["gpu_state", "0", "n1", "reserved", "GPU-0"] == 1
    assert found["gpu_state", "1", "n1", "unreserved", "GPU-1"] == 1
    assert found["gpu_state", "2", "n1", "quarantined", "GPU-2"] == 1
    assert found["gpu_state", "3", "n1", "available", "GPU-3"] == 1
    assert found["gpu_info", "0", "5", "H100", "n1", "slurm", "alice", "GPU-0"] == 1
    assert found["gpu_info", "3", "", "H100", "n1", "", "", "GPU-3"] == 1
    assert found["gpu_memory_used_bytes", "0", "n1", "GPU-0"] == 4000 * 1024 * 1024
    assert found["gpu_memory_total_bytes", "0", "n1", "GPU-0"] == 80_000 * 1024 * 1024
    assert found["gpu_utilization_ratio", "3", "n1", "GPU-3"] == 0.5
    assert found["gpu_held_idle_seconds", "0", "n1", "GPU-0"] == 40
    assert found["gpu_quarantined", "2", "n1", "fan", "GPU-2"] == 1
    assert found["unreserved_gpus", "n1", "bob"] == 1
    assert found["gpus", "n1", "available"] == found["gpus", "n1", "unknown"] == 1
    assert ("gpu_memory_used_bytes", "4", "n1", "GPU-4") not in found


def test_the_node_tells_its_queue_and_its_scan() -> None:
    found = samples(VIEW)
    assert found["queue_requests", "n1"] == 2
    assert found["queue_longest_wait_seconds", "n1"] == 90
    assert found["scan_timestamp_seconds", "n1"] == NOW - 30
    assert found["scan_failed", "n1"] == 0
    assert found["expected_gpus", "n1"] == 5
    assert found["store_up",] == 1


def test_a_series_with_a_jobs_label_ends_with_its_reservation() -> None:
    assert any("alice" in key for key in samples(VIEW))
    assert not any("alice" in key for key in samples(replace(VIEW, reservations={})))


def test_each_of_those_who_share_a_gpu_has_a_series() -> None:
    other = Reservation("GPU-0", replace(JOB, owner="job:c:6:0", job_id="6"), NOW - 50)
    shared = Reservation("GPU-0", JOB, NOW - 100, co_holders=(other,))
    found = samples(replace(VIEW, reservations={"GPU-0": shared}))
    assert {key[2] for key in found if key[0] == "gpu_info" and key[1] == "0"} == {"5", "6"}


def test_what_is_not_known_has_no_series_and_is_never_available() -> None:
    unread = replace(VIEW, scan=None, scanned_at=None, reservations={}, quarantines={})
    found = samples(replace(unread, most_gpus={"GPU-0": 0}))
    assert not {
        key for key in found if key[0] in ("gpu_memory_used_bytes", "scan_timestamp_seconds")
    }
    assert found["gpus", "n1", "available"] == 0
    assert found["scan_failed", "n1"] == 1


@pytest.mark.parametrize("where", ["user", "job", "model", "reason", "process"])
def test_hostile_names_are_short_and_printable(where: str) -> None:
    claim = replace(JOB, **({"user": HOSTILE} if where == "user" else {"job_id": HOSTILE}))
    reading = replace(gpu(0), name=HOSTILE if where == "model" else "H100")
    view = replace(
        VIEW,
        scan=Scan("n1", 0.0, 0.1, (reading, gpu(1, process(HOSTILE), used_mb=4000))),
        reservations={"GPU-0": Reservation("GPU-0", claim, NOW - 100)},
        quarantines={"GPU-1": Quarantine("GPU-1", HOSTILE, NOW)} if where == "reason" else {},
    )
    text = cluster_metrics([node_status(view, UsagePolicy(1024))]).decode()
    assert len(text) < 20_000
    assert all(line.isprintable() for line in text.splitlines())
    told = {value for key in samples(view) for value in key if "x" * 20 in value}
    beginning = '?[31m?<b>"\\??'
    assert told == {beginning + "x" * (MAX_LABEL - len(beginning))}


def test_many_users_fill_no_more_than_their_share() -> None:
    processes = tuple(process(f"user{number}", number + 1) for number in range(MAX_USERS + 68))
    view = replace(VIEW, scan=Scan("n1", 0.0, 0.1, (gpu(1, *processes, used_mb=4000),)))
    found = {key: value for key, value in samples(view).items() if key[0] == "unreserved_gpus"}
    assert len(found) == MAX_USERS + 1
    assert found["unreserved_gpus", "n1", OTHERS] == 68


def counts(*events: Event) -> HistoryCounts:
    found = HistoryCounts()
    found.add(events)
    return found


def texts_of(text: str) -> str:
    """The cluster's metrics with what one node has published."""
    known = published_counts(text)
    return cluster_metrics([], {} if known is None else {"n1": known}).decode()


def test_what_nodes_publish_is_told_in_the_form_of_their_files() -> None:
    claim = Claim("job:c:5:0", "slurm", "alice")
    facts = {
        "took_s": 0.2,
        "outcome": "refused",
        "conflict": {"cause": "reserved", "policy": "requeue"},
    }
    counted = counts(
        Event("1-0", NOW, "grant", "GPU-0", claim),
        Event("2-0", NOW, PROLOG, claim=claim, facts=facts),
    )
    counted.add_refused({"busy": 3})
    text = json.dumps(counted.to_dict())
    own = node_metrics(node_status(VIEW, UsagePolicy(1024)), NodeFacts("n1"), counted).decode()
    of_cluster = texts_of(text).splitlines()
    told = [one for one in of_cluster if "_total{" in one or "hook_duration" in one]
    assert 'canhazgpu_refusals_total{cause="reserved",node="n1"} 1.0' in told
    assert 'canhazgpu_refused_requests_total{cause="busy",node="n1"} 3.0' in told
    assert 'canhazgpu_hook_duration_seconds_count{hook="prolog",node="n1"} 1.0' in told
    assert len(told) > 40
    assert not set(told) - set(own.splitlines())
    # Two nodes are in one family each.
    both = cluster_metrics([], {"n1": counted, "n2": counts()}).decode()
    assert both.count("# TYPE canhazgpu_grants_total counter") == 1
    assert 'canhazgpu_grants_total{node="n2",type="job"} 0.0' in both


def test_without_published_counters_there_is_no_counter() -> None:
    assert " counter" not in cluster_metrics([node_status(VIEW, UsagePolicy(1024))]).decode()


def published(*numbers: list[Any], seconds: Any = None) -> str:
    return json.dumps(
        {"through": "", "numbers": numbers, "seconds": seconds or {}, "outage": False}
    )


@pytest.mark.parametrize(
    "text",
    [
        "", "null", "[]", "{", "1", '"x"', "{}", '{"through": 1, "numbers": 5}',
        published(["grants"]), published(["grants", "job", "x", 1]), published([HOSTILE, 1]),
        published([1, 2, 3]), published(["grants", "job", -5]), published(["grants", "job", 1e300]),
        published(["requeues", 2**60]), published(["agent_children", 5]), published([[], {}, None]),
        published(seconds={HOSTILE: 5.0, "prolog": -1.0}), published(seconds=[1]),
    ],
)  # fmt: skip
def test_what_a_node_counts_is_no_text_of_its_own(text: str) -> None:
    found = texts_of(text)
    assert "<b>" not in found
    assert len(found) < 20_000
    values = [one.rpartition(" ")[2] for one in found.splitlines() if one.startswith("canhazgpu_")]
    assert set(values) <= {"0.0", "1.0"}


def test_labels_are_words_of_ours() -> None:
    many = [["conflicts", f"x{i}{HOSTILE}", f"y{i}", 1] for i in range(500)]
    found = texts_of(published(*many, ["grants", "\u202e", 2], ["grants", "job", 3]))
    assert 'canhazgpu_conflicts_total{cause="other",node="n1",policy="other"} 500.0' in found
    assert 'canhazgpu_grants_total{node="n1",type="other"} 2.0' in found
    assert 'canhazgpu_grants_total{node="n1",type="job"} 3.0' in found
    assert found.count("canhazgpu_conflicts_total{") == 1
