"""Slurm's commands under their time limit, with programs that are real scripts."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from canhazgpu.errors import SchedulerError
from canhazgpu.schedulers.slurm.control.commands import DEFAULT_BIN_DIRS, SlurmCommands


def script(directory: Path, text: str, name: str = "scontrol") -> SlurmCommands:
    path = directory / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return SlurmCommands(str(directory), 10.0, {"SOME": "thing"})


def test_a_command_gets_arguments_and_environment_and_its_words_come_back(tmp_path: Path) -> None:
    commands = script(tmp_path, 'cat; echo "$SOME:$1:$2"')
    assert commands.run("scontrol", "show", "a b;$(x)") == "thing:show:a b;$(x)\n"


@pytest.mark.parametrize("text", ["exec sleep 20", "sleep 3 & exec sleep 20"])
def test_a_command_that_takes_too_long_is_ended(tmp_path: Path, text: str) -> None:
    script(tmp_path, text)
    began = time.monotonic()
    with pytest.raises(SchedulerError, match=r"scontrol gave no answer in 0\.3 s"):
        SlurmCommands(str(tmp_path), 0.3, {"PATH": "/usr/bin:/bin"}).run("scontrol", "show")
    assert time.monotonic() - began < 15


def test_a_program_that_is_not_there_is_named_with_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(SchedulerError, match=f"scancel is not in {tmp_path}: set slurm.bin_dir"):
        script(tmp_path, "").run("scancel", "12")
    with pytest.raises(SchedulerError, match=f"no-such is not in {', '.join(DEFAULT_BIN_DIRS)}"):
        SlurmCommands("", 1.0, {}).run("no-such")


def test_a_program_that_cannot_run_is_named(tmp_path: Path) -> None:
    (tmp_path / "scontrol").write_bytes(b"\x7fELF")
    (tmp_path / "scontrol").chmod(0o755)
    with pytest.raises(SchedulerError, match="cannot run scontrol: Exec format error"):
        SlurmCommands(str(tmp_path), 1.0, {}).run("scontrol", "show")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "echo fine; echo 'Requested operation\n is disabled' >&2; exit 1",
            "Requested operation is disabled",
        ),
        ("echo only out; exit 3", "only out"),
        ("exit 3", ""),
        ("printf '\\377' >&2; exit 3", "\ufffd"),
    ],
)
def test_a_command_that_fails_is_quoted(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(SchedulerError) as caught:
        script(tmp_path, text).run("scontrol", "requeue", "12")
    assert str(caught.value) == f"scontrol requeue failed: {said}"


def test_a_failure_without_arguments_is_told_too(tmp_path: Path) -> None:
    with pytest.raises(SchedulerError, match="sinfo failed: no"):
        script(tmp_path, "echo no; exit 1", "sinfo").run("sinfo")


@pytest.mark.slow
def test_only_the_time_in_commands_counts(tmp_path: Path) -> None:
    script(tmp_path, "sleep 0.2; echo done")
    commands = SlurmCommands(str(tmp_path), 1.0, {"PATH": "/usr/bin:/bin"})
    assert commands.run("scontrol") == "done\n"
    time.sleep(1.2)
    assert commands.run("scontrol") == "done\n"


@pytest.mark.slow
def test_the_commands_of_one_hook_share_their_time(tmp_path: Path) -> None:
    script(tmp_path, "sleep 2")
    commands = SlurmCommands(str(tmp_path), 3.0, {"PATH": "/usr/bin:/bin"})
    commands.run("scontrol")
    with pytest.raises(SchedulerError, match=r"scontrol gave no answer in (0\.|1 s)"):
        commands.run("scontrol")


def test_a_question_leaves_time_for_an_order(tmp_path: Path) -> None:
    script(tmp_path, "exec sleep 20", "squeue")
    commands = script(tmp_path, "echo done")
    bounded = SlurmCommands(str(tmp_path), 1.0, {"PATH": "/usr/bin:/bin"})
    with pytest.raises(SchedulerError, match=r"squeue gave no answer in 0\.3"):
        bounded.run("squeue", share=1 / 3)
    assert bounded.run("scontrol") == commands.run("scontrol")
