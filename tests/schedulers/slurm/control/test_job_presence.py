"""Which jobs are on the node: by their slurmstepds' sockets, and by squeue where there is none."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from canhazgpu.schedulers.slurm.control.commands import SlurmCommands
from canhazgpu.schedulers.slurm.control.job_presence import JobPresence, parse_jobs_on_node
from canhazgpu.schedulers.slurm.control.queries import own_drain_reason


class Spool:
    """slurmd's directory, in which a test makes the sockets of slurmstepds."""

    def __init__(self, place: Path) -> None:
        # Longer than a socket's address may be.
        self.place = place / ("deep" * 20) / ("deeper" * 10)
        self.place.mkdir(parents=True)
        self.bin = place / "bin"
        self.bin.mkdir()
        self.stack = ExitStack()

    def slurmstepd(self, name: str, *, alive: bool = True) -> None:
        directory = os.open(self.place, os.O_RDONLY)
        listener = self.stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(f"/proc/self/fd/{directory}/{name}")
        os.close(directory)
        if alive:
            listener.listen()

    def squeue(self, text: str) -> None:
        path = self.bin / "squeue"
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def presence(self, place: Path | None = None) -> JobPresence:
        commands = SlurmCommands(str(self.bin), 5.0, {})
        return JobPresence("n1", place or self.place, commands)


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    made = Spool(tmp_path)
    made.squeue("exit 0")
    with made.stack:
        yield made


def test_a_job_whose_shepherd_listens_is_here(spool: Spool) -> None:
    spool.slurmstepd("n1_12.4294967291")
    spool.slurmstepd("n1_13.0", alive=False)
    spool.slurmstepd("n2_14.0")
    spool.slurmstepd("n1_1.0")
    assert spool.presence().absent(["12", "13", "14", "1", "2"]) == {"13", "14", "2"}


def test_slurm_is_not_asked_where_the_sockets_tell(spool: Spool, tmp_path: Path) -> None:
    spool.squeue(f"touch {tmp_path}/asked")
    spool.slurmstepd("n1_12.0")
    assert spool.presence().absent(["12"]) == set()
    assert spool.presence().absent([]) == set()
    assert not (tmp_path / "asked").exists()
    assert spool.presence().is_absent("13")
    assert (tmp_path / "asked").exists()


def test_what_slurm_has_on_the_node_is_here(spool: Spool) -> None:
    spool.squeue("printf '12 RUNNING\\n13 COMPLETING\\n14 COMPLETED\\n15 CANCELLED\\n'")
    assert spool.presence().absent(["12", "13", "14", "15", "16"]) == {"14", "15", "16"}


@pytest.mark.parametrize("text", ["exit 1", "kill -9 $$", "echo broken >&2; exit 3"])
def test_no_answer_is_no_yes(spool: Spool, text: str) -> None:
    spool.squeue(text)
    assert spool.presence().absent(["12"]) == set()
    (spool.bin / "squeue").unlink()
    assert spool.presence().absent(["12"]) == set()


def test_a_directory_that_is_not_there_tells_nothing(spool: Spool) -> None:
    spool.squeue("printf '12 RUNNING\\n'")
    assert spool.presence(spool.place / "none").absent(["12", "13"]) == {"13"}


def test_files_that_are_no_sockets_are_no_shepherds(spool: Spool) -> None:
    (spool.place / "n1_12.0").write_text("")
    (spool.place / "n1_13.0").symlink_to("n1_13.0")
    assert spool.presence().absent(["12", "13"]) == {"12", "13"}


def test_lines_of_squeue() -> None:
    assert parse_jobs_on_node("") == frozenset()
    text = "1 RUNNING\n2 PENDING\n3 SUSPENDED\n\n4 RUNNING x\n5\n6 CONFIGURING\n"
    assert parse_jobs_on_node(text) == {"1", "3", "6"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("n1|drained|canhazgpu: GPU 0 is in use\n", "canhazgpu: GPU 0 is in use"),
        ("n1|draining|canhazgpu: a|b\n", "canhazgpu: a|b"),
        ("n2|drained|canhazgpu: x\nn1|idle|none\n", ""),
        ("n1|drained|replace the fan, not canhazgpu: said bob\n", ""),
        ("n1|down|canhazgpu: x\n", ""),
        ("n1|drained\n", ""),
        ("", ""),
        ("garbage", ""),
    ],
)
def test_whose_drain_it_is(text: str, reason: str) -> None:
    assert own_drain_reason(text, "n1") == reason
