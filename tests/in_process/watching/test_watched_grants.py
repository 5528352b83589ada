"""What a run is recorded with before its grant is final."""

from __future__ import annotations

from pathlib import Path

import pytest

from canhazgpu.errors import NodeStateError
from canhazgpu.in_process.watching.waiting_request import WaitingRequest
from canhazgpu.in_process.watching.watched_grants import (
    HandedOverError,
    RunRecording,
    WatchedGrants,
)
from canhazgpu.ledger.local.runs.run_files import RunFiles
from canhazgpu.ledger.owner import RUN
from canhazgpu.ledger.values import Claim
from canhazgpu.node.identity import boot_id
from canhazgpu.node.process_id import ProcessId

COMMAND = ProcessId(4711, 99)


def claim_of(owner: str) -> Claim:
    return Claim(owner, RUN, "ann", 1000, boot_id=boot_id(), processes=(COMMAND,))


def watched(directory: Path) -> WatchedGrants:
    def hand_over(_waiting: WaitingRequest) -> None:
        raise HandedOverError

    return WatchedGrants(RunFiles(directory), ProcessId(1, 2), 1000, (), hand_over)  # type: ignore[arg-type]


def test_who_asks_again_gets_the_marker_that_the_watcher_knows(tmp_path: Path) -> None:
    """Else nobody would find what the command leaves behind, and its GPUs were given away."""
    grants = watched(tmp_path)
    first = grants.run_settings("run:ab", 60.0, ends_when_lost=False)
    RunRecording(grants.files, claim_of("run:ab"), first).write(["GPU-0"])
    assert grants.run_settings("run:ab", 60.0, ends_when_lost=False) == first
    assert grants.run_settings("run:cd", 60.0, ends_when_lost=False).marker != first.marker


def test_a_record_that_cannot_be_written_is_a_fault_of_the_node(tmp_path: Path) -> None:
    (tmp_path / "runs").touch()
    grants = watched(tmp_path)
    run = grants.run_settings("run:ab", None, ends_when_lost=False)
    with pytest.raises(NodeStateError, match="cannot keep the record of a run"):
        RunRecording(grants.files, claim_of("run:ab"), run).write(["GPU-0"])
