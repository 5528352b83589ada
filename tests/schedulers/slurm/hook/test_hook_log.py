"""What a hook says of itself in the history: of its own job, to the end, without cut words."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from canhazgpu.ledger.grant_answers import BlockedGpu, GrantedGpus
from canhazgpu.ledger.journal_entries import EPILOG, PROLOG
from canhazgpu.ledger.owner import JobOwner
from canhazgpu.ledger.values import Claim
from canhazgpu.schedulers.slurm.control.commands import SlurmCommands
from canhazgpu.schedulers.slurm.hook.log import (
    EARLIER_ATTEMPT,
    MAX_DECISIONS,
    UNKNOWN_ATTEMPT,
    HookDecision,
    HookLog,
)
from canhazgpu.schedulers.slurm.hook.logged_ports import LoggedActions

OWNER = JobOwner("c1", "12", 1)
CLAIM = Claim(OWNER.token, "slurm", "ann", 1000, "12")


def hook_log(answer: Any = None, released: dict[str, list[str]] | None = None) -> HookLog:
    ledger: Any = SimpleNamespace(last_answer=answer, released=released or {}, without_store="")
    return HookLog(ledger=ledger)


def facts(log: HookLog, kind: str) -> dict[str, Any]:
    found = dict(log.history_entry(kind, CLAIM).facts)
    return {name: found[name] for name in ("outcome", "gpus")}


@pytest.mark.parametrize(
    ("answer", "released", "told"),
    [
        pytest.param(GrantedGpus(("GPU-a",)), {}, ("granted", ["GPU-a"]), id="granted"),
        pytest.param(
            GrantedGpus(("GPU-a",)),
            {"job:c1:7:0": ["GPU-a"]},
            ("granted", ["GPU-a"]),
            id="after it released another job's",
        ),
        pytest.param(
            GrantedGpus(("GPU-a",)),
            {OWNER.token: ["GPU-a"]},
            ("refused", []),
            id="given back at the second look",
        ),
        pytest.param(BlockedGpu("GPU-a", "reserved"), {}, ("refused", []), id="refused"),
        pytest.param(None, {"job:c1:7:0": ["GPU-a"]}, ("nothing", []), id="no answer"),
    ],
)
def test_a_prolog_tells_of_its_own_job(
    answer: Any, released: dict[str, list[str]], told: tuple[str, list[str]]
) -> None:
    assert tuple(facts(hook_log(answer, released), PROLOG).values()) == told


@pytest.mark.parametrize(
    ("released", "recorded", "told"),
    [
        pytest.param(
            {OWNER.token: ["GPU-a"], "job:c1:7:0": ["GPU-b"]},
            ("GPU-a",),
            ("released", ["GPU-a"]),
            id="with another job's",
        ),
        pytest.param(
            {"job:c1:7:0": ["GPU-b"]},
            ("GPU-a",),
            ("released", ["GPU-a"]),
            id="another job's epilog was faster",
        ),
        pytest.param({}, (), ("nothing", []), id="nothing was granted"),
    ],
)
def test_an_epilog_tells_of_its_own_job(
    released: dict[str, list[str]], recorded: tuple[str, ...], told: tuple[str, list[str]]
) -> None:
    log = hook_log(released=released)
    log.recorded_gpus = recorded
    assert tuple(facts(log, EPILOG).values()) == told


@pytest.mark.parametrize(
    ("attempt", "released", "told"),
    [
        ("", {}, (1, "")),
        (UNKNOWN_ATTEMPT, {"job:c1:12:0": ["GPU-a"]}, (0, "")),
        (UNKNOWN_ATTEMPT, {"job:c1:12:1": ["GPU-a"]}, (1, "")),
        (UNKNOWN_ATTEMPT, {}, (1, UNKNOWN_ATTEMPT)),
        (EARLIER_ATTEMPT, {}, (0, EARLIER_ATTEMPT)),
    ],
)
def test_an_epilog_without_a_record_is_of_the_attempt_that_it_released(
    attempt: str, released: dict[str, list[str]], told: tuple[int, str]
) -> None:
    log = hook_log(released=released)
    log.attempt = attempt
    assert (log.owner_of(OWNER).attempt, log.attempt) == told
    assert log.history_entry(EPILOG, CLAIM).facts.get("attempt", "") == told[1]


def actions(log: HookLog, file: Path | None = None) -> LoggedActions:
    drains: Any = SimpleNamespace()
    return LoggedActions(SlurmCommands("/nonexistent", 1.0, {}), file, log, drains)


def test_a_long_reason_leaves_what_was_done() -> None:
    log = hook_log()
    why = "GPU 1 on n1 is in use by bob WITHOUT RESERVATION " + "and much more " * 100
    actions(log).log_decision("12", HookDecision("job requeued", why, {"requeue": 1}, True))
    entry = log.history_entry(PROLOG, CLAIM)
    assert entry.reason.startswith("job 12: GPU 1 on n1 is in use by bob WITHOUT RESERVATION and")
    assert entry.reason.endswith(" ...: job requeued")
    (told,) = entry.facts["actions"]
    assert told["what"] == "job requeued" and told["requeue"] == 1
    assert {*told["cause"].split()} <= {*why.split(), "..."}


def test_of_many_decisions_the_first_and_the_last_are_told() -> None:
    log = hook_log()
    for number in range(100):
        actions(log).log(f"job 12: decision {number}")
    entry = log.history_entry(PROLOG, CLAIM)
    assert entry.reason.split("; ")[0] == "job 12: decision 0"
    assert entry.reason.endswith("; job 12: decision 99")
    assert len(entry.reason.split("; ")) == MAX_DECISIONS + 1
    assert f"and {100 - MAX_DECISIONS} more" in entry.reason
    assert entry.facts["actions"][0]["what"] == "decision 0"


def test_what_is_of_the_node_is_no_decision_about_the_job() -> None:
    log = hook_log()
    actions(log).log("event=store-lost node=n1")
    actions(log).log("n1: 3 of 4 GPUs: see 'nvidia-smi -L'")
    told = log.history_entry(PROLOG, CLAIM)
    assert [one["what"] for one in told.facts["actions"]] == [
        "n1: 3 of 4 GPUs: see 'nvidia-smi -L'"
    ]
    assert "event=store-lost" in told.reason


def test_log_lines_stay_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "slurmd.log"
    path.touch()
    logged = LoggedActions(
        SlurmCommands("/nonexistent", 1.0, {}), path, hook_log(), SimpleNamespace()
    )  # type: ignore[arg-type]
    logged.log_decision("12", HookDecision("job requeued", "GPU 1 is in use", why_first=True))
    logged.log_decision("12", HookDecision("ended PID 7 (x) of bob", "it used GPU 1"))
    lines = [line.partition("canhazgpu: ")[2] for line in path.read_text().splitlines()]
    assert lines == [
        "job 12: GPU 1 is in use: job requeued",
        "job 12: ended PID 7 (x) of bob: it used GPU 1",
    ]
