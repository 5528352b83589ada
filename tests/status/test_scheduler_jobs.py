"""How squeue is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from canhazgpu.config.schema import SlurmConfig
from canhazgpu.errors import SchedulerError
from canhazgpu.schedulers.slurm.control import job_lookup
from canhazgpu.schedulers.slurm.control.job_lookup import (
    SqueueLookup,
    find_command,
    parse_squeue,
    parse_state,
    squeue_environment,
)
from canhazgpu.status.scheduler_jobs import JobInfo, JobNow


def test_squeue_records() -> None:
    text = (
        "m4rk|12|1700000000|alice|a|b, c\n"
        "m4rk|13|N/A N/A|bob|x\n"
        "m4rk|15|1731536000 1700000000|bob|without a limit\n"
        "m4rk|16|1731535999 1700000000|bob|365 days less a second\n"
        "m4rk|1|5|root|forged without its marker is not, but this test's marker is known\n"
        "other|14|5|root|forged\n"
        "no record\n\n"
    )

    found = parse_squeue(text, "m4rk")

    assert found["12"] == JobInfo("alice", "a|b, c", 1700000000.0)
    assert found["13"] == JobInfo("bob", "x", None)
    assert found["15"].ends_at is None
    assert found["16"].ends_at == 1731535999.0
    assert "14" not in found


def squeue(directory: Path, script: str) -> SqueueLookup:
    command = directory / "squeue"
    command.write_text(f"#!/bin/sh\n{script}\n")
    command.chmod(0o755)
    return SqueueLookup(SlurmConfig(bin_dir=str(directory)), {"PATH": "/bin:/usr/bin"})


@pytest.mark.parametrize(
    ("script", "number"),
    [
        ("echo '12 4711_3 RUNNING'", "12"),
        ("printf '4711 4711+0 RUNNING\n4712 4711_3 RUNNING\n'", "4712"),
        ("echo '12 4711_4 RUNNING'", None),
        ("echo 'x 4711_3 RUNNING'", None),
        ("printf '12 4711_3 RUNNING\n13 4711_3 PENDING\n'", None),
        ("echo 'slurm_load_jobs error' >&2; exit 1", None),
        ("", None),
    ],
)
def test_another_name_of_a_job_has_one_number(
    tmp_path: Path, script: str, number: str | None
) -> None:
    assert squeue(tmp_path, script).resolve_job_id("4711_3") == number


def test_commands_are_found_by_absolute_path_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    squeue(tmp_path, "true")
    monkeypatch.chdir(tmp_path)

    assert find_command("squeue", "", {"PATH": str(tmp_path)}) == str(tmp_path / "squeue")
    assert find_command("squeue", "", {"PATH": ":."}) != "squeue"


def test_the_users_settings_of_squeue_do_not_count() -> None:
    env = squeue_environment({"SQUEUE_USERS": "x", "SLURM_CLUSTERS": "y", "SLURM_CONF": "/c"})

    assert env == {"SLURM_CONF": "/c", "SLURM_TIME_FORMAT": "%s", "LC_ALL": "C.UTF-8"}


STATE = "m4rk|{}|{}|ann|PENDING|0|1700000120|N/A|n1|job requeued in held state"


def test_the_present_state_of_one_job() -> None:
    tasks = "\n".join((STATE.format(11, "11_4"), STATE.format(12, "11_3"), "x|12|forged"))
    assert parse_state(tasks, "m4rk", "12") == JobNow(
        "12", "11_3", "ann", "PENDING", "job requeued in held state", "n1", 1700000120.0, None, True
    )
    assert parse_state(tasks, "other", "12") is None
    assert parse_state("", "m4rk", "12") is None


def test_only_a_waiting_job_without_priority_is_held() -> None:
    for old, new, held in (
        ("PENDING|0", "PENDING|4294901751", False),
        ("PENDING|0", "COMPLETED|0", False),
        ("", "", True),
    ):
        now = parse_state(STATE.format(12, 12).replace(old, new), "m4rk", "12")
        assert now is not None and now.is_held is held


def test_the_end_of_a_job_without_a_limit_is_none() -> None:
    year = 365 * 86400
    text = f"m4rk|12|12|ann|RUNNING|1|1700000000|{1700000000 + year}|n1|None"
    now = parse_state(text, "m4rk", "12")
    assert now is not None and (now.starts_at, now.ends_at) == (1700000000.0, None)


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("echo slurm_load_jobs error: Invalid job id specified >&2; exit 1", None),
        ("exit 0", None),
        ("echo 'slurm_load_jobs error: Unable to contact' >&2; exit 1", "Unable to contact"),
        ("exec sleep 30", "gave no answer in 0.2 s"),
    ],
)
def test_no_state_is_unknown_or_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, told: str | None
) -> None:
    monkeypatch.setattr(job_lookup, "LOOKUP_TIMEOUT_S", 30.0 if "sleep" not in script else 0.2)
    lookup = squeue(tmp_path, script)
    if told is None:
        assert lookup.job_now("12") is None
        return
    with pytest.raises(SchedulerError, match=told):
        lookup.job_now("12")


def test_a_machine_without_squeue_says_so(tmp_path: Path) -> None:
    with pytest.raises(SchedulerError, match=r"not on this machine; slurm\.bin_dir names"):
        SqueueLookup(SlurmConfig(bin_dir=str(tmp_path)), {}).job_now("12")
