"""What `canhazgpu explain` says of jobs, runs and reservations of every kind, word for word."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from canhazgpu.cli.terminal.explanation import answer_lines, answer_to_dict, unknown_owner_text
from canhazgpu.errors import StoreError
from canhazgpu.gpu.assigned import AssignedGpu
from canhazgpu.ledger.journal_entries import JournalEntry
from canhazgpu.ledger.values import Claim, Event, Reservation, Share
from canhazgpu.service.history import ExplainAnswer, JobOnNode, RecordedJob
from canhazgpu.status.event_format import NodeEvent
from canhazgpu.status.history.next_steps import Holding
from canhazgpu.status.history.owner_events import events_of_owner
from canhazgpu.status.scheduler_jobs import JobNow

A, B = "GPU-a", "GPU-b"
IN_USE = "GPU 0 (GPU-a) on n1 is in use by bob WITHOUT RESERVATION: 7000MB used by PID 7 (x)"
SEEN = {"gpu": A, "place": "0", "state": "in use", "used_mb": 7000, "who": "bob: PID 7 (x)"}
FREE = {"gpu": B, "place": "1", "state": "free", "used_mb": 4}
HERE = JobOnNode("n1", None, ())
NOW = JobNow("12", "12", "ann", "COMPLETED", "None", "n1", 30.0, 40.0)


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def claim(attempt: int = 0, cluster: str = "c1", **more: Any) -> Claim:
    return Claim(f"job:{cluster}:12:{attempt}", "slurm", "ann", 1000, "12", **more)


def hook(kind: str, at: float, outcome: str, *actions: Any, attempt: int = 0, **more: Any) -> Event:
    facts = {"outcome": outcome, "took_s": 0.5, "gpus": [], "seen": [], **more}
    if actions:
        facts["actions"] = list(actions)
    reason = "; ".join(
        f"job 12: {': '.join(filter(None, (one.get('cause'), one['what'], one.get('why'))))}"
        for one in actions
    )
    return Event(f"{at}-0", at, kind, "", claim(attempt), reason=reason, facts=facts)


def grant(at: float, gpu: str = A, attempt: int = 0, **more: Any) -> Event:
    return Event(f"{at}-0", at, "grant", gpu, claim(attempt, **more), granted_at=at)


def release(at: float, granted_at: float, gpu: str = A, attempt: int = 0, **more: Any) -> Event:
    one = Event(f"{at}-0", at, "release", gpu, claim(attempt), granted_at, "job ended")
    return replace(one, **more)


def lines(*events: Event, now: JobNow | None = NOW, node: str = "n1", **more: Any) -> list[str]:
    """The lines of the job, without the day."""
    shown = tuple(NodeEvent(node, one) for one in events)
    answer = ExplainAnswer("12", HERE, events=shown, scheduler=now, read_at=50.0)
    return [line.replace("1970-01-01 ", "") for line in answer_lines(replace(answer, **more))]


PLAIN = (
    grant(1),
    hook("prolog", 2, "granted", gpus=[A], seen=[{**SEEN, "state": "free", "who": ""}]),
    release(30, 1),
    hook("epilog", 31, "released", gpus=[A]),
)
REQUEUED = {"what": "job requeued", "cause": IN_USE, "requeue": 1, "max_requeues": 2}


def test_a_plain_job() -> None:
    assert lines(*PLAIN) == [
        "job 12 of ann",
        "node n1",
        "  00:00:01  grant of attempt 0: GPU 0 (GPU-a)",
        "  00:00:02  prolog of attempt 0: granted after 0.5 s, GPU 0 (GPU-a)",
        "  00:00:30  release of attempt 0: GPU 0 (GPU-a) after 29s: job ended",
        "  00:00:31  epilog of attempt 0: released after 0.5 s, GPU 0 (GPU-a)",
        "Slurm: COMPLETED at 00:00:40 on n1",
    ]


def test_a_conflict_and_its_second_try() -> None:
    refused = hook("prolog", 1, "refused", REQUEUED, seen=[SEEN])
    first = [refused, hook("epilog", 2, "nothing", seen=[SEEN])]
    waits = replace(NOW, state="PENDING", reason="BeginTime", nodes="", starts_at=120.0)
    told = [
        "job 12 of ann",
        "node n1",
        "  00:00:01  prolog of attempt 0: refused after 0.5 s",
        f"      {IN_USE}",
        "      job requeued, requeue 1 of at most 2",
        "      saw GPU 0 (GPU-a): in use, 7000MB used, bob: PID 7 (x)",
        "  00:00:02  epilog of attempt 0: nothing to release after 0.5 s",
    ]
    assert lines(*first, now=waits) == [
        *told,
        "Slurm: PENDING (BeginTime), it is tried again at 00:02:00 or later",
    ]
    second = [grant(9, attempt=1), hook("prolog", 9, "granted", attempt=1, gpus=[A])]
    assert lines(*first, *second) == [
        *told,
        "  00:00:09  grant of attempt 1: GPU 0 (GPU-a)",
        "  00:00:09  prolog of attempt 1: granted after 0.5 s, GPU 0 (GPU-a)",
        "Slurm: COMPLETED at 00:00:40 on n1",
    ]


def test_a_job_that_is_held() -> None:
    held = {"what": "job held", "cause": IN_USE, "requeues": 1}
    state = replace(NOW, state="PENDING", reason="job requeued in held state", is_held=True)
    assert lines(hook("prolog", 1, "refused", held), now=replace(state, starts_at=99.0))[2:] == [
        "  00:00:01  prolog of attempt 0: refused after 0.5 s",
        f"      {IN_USE}",
        "      job held after 1 requeue: it waits for 'scontrol release'",
        "Slurm: PENDING, held (job requeued in held state): 'scontrol release 12' lets it try"
        " again, and not before 00:01:39",
    ]


@pytest.mark.parametrize(
    ("actions", "told"),
    [
        pytest.param(
            [{"what": "job starts on other GPUs of the node", "cause": IN_USE}],
            [IN_USE, "job starts on other GPUs of the node"],
            id="swap",
        ),
        pytest.param(
            [
                {"what": "ended PID 7 (x) of bob", "why": "it used GPU 0 (GPU-a)"},
                {"what": "job starts, 1 s later", "cause": IN_USE},
            ],
            [
                "ended PID 7 (x) of bob: it used GPU 0 (GPU-a)",
                IN_USE,
                "job starts, 1 s later",
            ],
            id="kill",
        ),
        pytest.param(
            [{"what": "job runs all the same", "cause": IN_USE}],
            [IN_USE, "job runs all the same"],
            id="warn",
        ),
        pytest.param(
            [{"what": "n1 drained", "cause": IN_USE}, {"what": "job requeued", "cause": IN_USE}],
            [IN_USE, "n1 drained", "job requeued"],
            id="drain",
        ),
        pytest.param(
            [
                {
                    "what": "job cancelled, since it cannot be requeued (Only batch jobs)",
                    "cause": "x",
                }
            ],
            ["x", "job cancelled, since it cannot be requeued (Only batch jobs)"],
            id="interactive",
        ),
    ],
)
def test_what_was_done_about_a_conflict(actions: list[dict[str, Any]], told: list[str]) -> None:
    (_, _, head, *rest, _) = lines(hook("prolog", 1, "granted", *actions, gpus=[A], seen=[FREE]))
    assert head == "  00:00:01  prolog of attempt 0: granted after 0.5 s, GPU-a"
    assert rest == [f"      {one}" for one in told]


def test_an_epilog_tells_what_it_found_on_the_jobs_own_gpus() -> None:
    stays = {"what": "PID 7 (x) of bob on GPU 0 (GPU-a) stays", "why": "it is bob's"}
    other = {**SEEN, "gpu": B, "place": "1"}
    told = lines(*PLAIN[:3], hook("epilog", 31, "released", stays, gpus=[A], seen=[SEEN, other]))
    assert told[5:-1] == [
        "  00:00:31  epilog of attempt 0: released after 0.5 s, GPU 0 (GPU-a)",
        "      PID 7 (x) of bob on GPU 0 (GPU-a) stays: it is bob's",
        "      saw GPU 0 (GPU-a): in use, 7000MB used, bob: PID 7 (x)",
    ]


def test_leftovers_that_cost_a_quarantine_and_its_end() -> None:
    why = "job 12 of ann left 7000MB used by no process shown"
    set_ = Event("32-0", 32, "quarantine", A, reason=why, by="epilog")
    others = Event("33-0", 33, "quarantine", B, reason="job 1 of ann left it", by="epilog")
    lifted = [Event("34-0", 34, "unquarantine", gpu, by="health check") for gpu in (A, B, A)]
    found = events_of_owner([*PLAIN, set_, others, *lifted], "12")
    assert lines(*found[:-1])[-2] == (
        "GPU-a on n1 stays quarantined until a health check finds it free, or 'canhazgpu admin"
        " unquarantine' lifts it"
    )
    assert lines(*found)[6:-1] == [
        "  00:00:32  quarantine: GPU 0 (GPU-a), by epilog: job 12 of ann left 7000MB used by no"
        " process shown",
        "  00:00:34  unquarantine: GPU 0 (GPU-a), by health check",
    ]


def test_a_job_that_shares_a_gpu() -> None:
    assert lines(grant(1, share=Share("shard", 2, 4)))[2] == (
        "  00:00:01  grant of attempt 0: GPU-a (shard 2 of 4)"
    )


def test_tasks_and_components_by_slurms_names() -> None:
    assert lines(now=replace(NOW, address="11_3"))[0] == "job 12 of ann, which Slurm calls 11_3"
    assert lines(now=replace(NOW, address="12_4"))[0] == (
        "job 12 of ann, which Slurm calls 12_4; explain its other tasks as 12_N"
    )
    assert lines(now=replace(NOW, address="12+0"))[0] == (
        "job 12 of ann, which Slurm calls 12+0; explain its other components as 12+N"
    )


def test_what_the_node_alone_granted_is_told_before_redis_has_it() -> None:
    facts = {"outcome": "granted", "took_s": 0.5, "gpus": [A], "without_store": "no answer"}
    lost = 'event=store-lost node=n1 reason="no answer"'
    entries = (
        JournalEntry("grant", 1, "job:c1:12:0", (A,), claim(), "granted by the node alone"),
        JournalEntry("prolog", 2, "job:c1:12:0", claim=claim(), reason=lost, facts=facts),
        JournalEntry("release", 9, "job:c1:12:0", reason="job ended"),
    )
    record = RecordedJob("job:c1:12:0", "ann", (AssignedGpu(0, A, 0),), True, 0)
    assert lines(on_this_node=JobOnNode("n1", record, entries)) == [
        "job 12 of ann",
        "node n1",
        "  00:00:01  grant of attempt 0: GPU-a, not in Redis yet: granted by the node alone",
        "  00:00:02  prolog of attempt 0: granted after 0.5 s, GPU-a, not in Redis yet",
        "      without the store: no answer",
        "  00:00:09  release of attempt 0: GPU-a after 8s, not in Redis yet: job ended",
        "on record on n1: job:c1:12:0, GPU-a, over, not told to the store yet",
        "the store has not heard yet from n1: grant, prolog, release",
        "Slurm: COMPLETED at 00:00:40 on n1",
    ]


def test_who_may_not_read_the_journal_is_told_who_may() -> None:
    here = JobOnNode("n1", None, None, "cannot read it")
    away = lines(on_this_node=here, fault=StoreError("no answer"))
    assert away[1] == (
        "what n1 has yet to tell the store, only root can read: 'sudo canhazgpu explain 12' there"
    )
    assert "only root" not in "".join(lines(on_this_node=here))


def test_a_job_whose_epilog_never_ran() -> None:
    held = Holding("n1", Reservation(A, claim(), 1.0))
    assert lines(*PLAIN[:2], holdings=(held,))[4:] == [
        "holds GPU-a on n1 since 00:00:01: no epilog released it, the node's health check does",
        "Slurm: COMPLETED at 00:00:40 on n1",
    ]
    what = "it is no longer on the node, and no epilog of attempt 0 ran"
    jobs = [{"job_id": "12", "what": what}, {"job_id": "13", "what": "something else"}]
    check = Event("50-0", 50, "health", reason="event=epilog-missing", facts={"jobs": jobs})
    assert events_of_owner([check], "12") == [check]
    assert events_of_owner([check], "14") == []
    assert lines(*PLAIN[:2], check)[4:-1] == [f"  00:00:50  health check: {what}"]


def test_a_job_on_a_node_that_rebooted() -> None:
    gone = release(30, 1, reason="node rebooted")
    again = [grant(60, attempt=1), hook("prolog", 61, "granted", attempt=1, gpus=[A])]
    assert lines(*PLAIN[:2], gone, *again)[4:-1] == [
        "  00:00:30  release of attempt 0: GPU 0 (GPU-a) after 29s: node rebooted",
        "      Slurm requeued it, not canhazgpu: its user, an administrator, preemption or a node's"
        " failure",
        "  00:01:00  grant of attempt 1: GPU 0 (GPU-a)",
        "  00:01:01  prolog of attempt 1: granted after 0.5 s, GPU 0 (GPU-a)",
    ]


def test_an_attempt_that_never_ran_is_not_told() -> None:
    # As slurmd says it once the job waits for its next attempt.
    late = hook("epilog", 5, "nothing", attempt=1)
    for fact, of in (("unknown", ""), ("earlier", " of an earlier attempt")):
        told = lines(replace(late, facts={**late.facts, "attempt": fact}))
        assert told[2] == f"  00:00:05  epilog{of}: nothing to release after 0.5 s"
        assert "attempt 1" not in "".join(told)


def test_a_prolog_that_did_not_come_to_its_end() -> None:
    (*_, gap, _) = lines(grant(1), release(3, 1), hook("epilog", 3, "released", gpus=[A]))
    assert gap == "      its prolog reserved and did not come to its end"
    (*_, gap, _) = lines(hook("epilog", 3, "nothing"))
    assert gap == (
        "      no prolog of it is on record here: Slurm started it without one, or it was killed"
    )
    # It began before the events that are shown.
    assert "its prolog" not in "".join(lines(*PLAIN[2:]))


def test_nodes_and_clusters_are_kept_apart() -> None:
    other = replace(PLAIN[0], claim=claim(cluster="c2"))
    told = lines(PLAIN[0], other)
    assert told[2].endswith("grant of attempt 0 on cluster c1: GPU-a")
    assert told[3].endswith("grant of attempt 0 on cluster c2: GPU-a")
    shown = (NodeEvent("n2", PLAIN[0]), NodeEvent("n1", PLAIN[0]))
    assert [one for one in lines(events=shown) if one.startswith("node")] == ["node n1", "node n2"]


def test_an_entry_of_an_older_release_has_its_reason_on_the_line() -> None:
    old = replace(PLAIN[1], reason="job 12: GPU 0 is in use: job requeued")
    assert lines(old)[2].endswith(", GPU 0 (GPU-a): job 12: GPU 0 is in use: job requeued")


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ({"state": "PENDING", "reason": "Resources"}, "PENDING (Resources)"),
        (
            {"state": "PENDING", "reason": "BeginTime", "starts_at": 60.0},
            "PENDING (BeginTime), it starts at 00:01:00 or later",
        ),
        ({"state": "CONFIGURING"}, "CONFIGURING on n1: its prologs run"),
        ({"state": "RUNNING", "ends_at": None}, "RUNNING on n1 since 00:00:30"),
        (
            {"state": "RUNNING", "ends_at": 90.0},
            "RUNNING on n1 since 00:00:30, until 00:01:30 at most",
        ),
        ({"state": "COMPLETING"}, "COMPLETING on n1: its epilogs run"),
        (
            {"state": "FAILED", "reason": "NonZeroExitCode"},
            "FAILED at 00:00:40 on n1 (NonZeroExitCode)",
        ),
        ({"state": "CANCELLED", "reason": "BeginTime", "nodes": ""}, "CANCELLED at 00:00:40"),
    ],
)
def test_what_slurm_says_of_it_now(state: dict[str, Any], told: str) -> None:
    assert lines(now=replace(NOW, **state))[1:] == [f"Slurm: {told}"]


def test_a_slurm_that_cannot_tell() -> None:
    assert lines(now=None)[1:] == [
        "Slurm does not know it any more: what became of it, 'sacct -j 12' tells where accounting"
        " is set up"
    ]
    assert lines(now=None, scheduler_fault="squeue gave no answer in 2 s")[1:] == [
        "Slurm cannot tell what comes next: squeue gave no answer in 2 s"
    ]


def test_a_reservation_by_hand() -> None:
    mine = Claim("manual:ab", "manual", "eve", 1002)
    events = tuple(
        NodeEvent("n1", one)
        for one in (
            Event("1-0", 1, "grant", A, mine, granted_at=1),
            Event("2-0", 2, "extend", A, mine, granted_at=1),
        )
    )
    held = Holding("n1", Reservation(A, mine, 1.0, 3601.0))
    answer = ExplainAnswer("", HERE, "manual:ab", events, (held,), read_at=50.0)
    assert [line.replace("1970-01-01 ", "") for line in answer_lines(answer)] == [
        "manual:ab of eve",
        "node n1",
        "  00:00:01  grant: GPU-a",
        "  00:00:02  extend: GPU-a",
        "holds GPU-a on n1 since 00:00:01, until 01:00:01",
    ]
    shown = answer_to_dict(answer)
    assert (shown["job_id"], shown["owner"], shown["slurm"]) == (None, "manual:ab", None)
    assert shown["holds"][0]["expires_at"] == 3601.0
    assert "nothing is known of manual:ab in the last 7d" in unknown_owner_text(answer, "7d")


def test_json_has_the_whole_story_and_what_comes_next() -> None:
    shown = tuple(NodeEvent("n1", one) for one in PLAIN)
    answer = ExplainAnswer("12", HERE, events=shown, scheduler=NOW, read_at=50.0)
    told = json.loads(json.dumps(answer_to_dict(answer)))
    assert [one["kind"] for one in told["events"]] == ["grant", "prolog", "release", "epilog"]
    assert told["slurm"]["state"] == "COMPLETED" and told["slurm_fault"] is None
    assert told["next"] == ["Slurm: COMPLETED at 1970-01-01 00:00:40 on n1"]
    assert told["holds"] == [] and told["owner"] is None


def test_a_job_that_nobody_knows_is_told_what_to_do() -> None:
    answer = ExplainAnswer("12", HERE, history_days=90)
    assert unknown_owner_text(answer, "7d") == (
        "nothing is known of job 12 in the last 7d, and Slurm does not know it: check the number"
        " with 'squeue --me'; '--since 90d' goes back as far as the history is kept"
    )
    assert "has not begun, or asks for no GPUs" in unknown_owner_text(
        replace(answer, scheduler=NOW), "7d"
    )
    faulty = replace(answer, scheduler_fault="squeue is not on this machine", history_days=0)
    assert unknown_owner_text(faulty, "7d").endswith("see --since")
