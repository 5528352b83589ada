"""Jobs that were on the node before it booted, as far as Slurm and the store can tell."""

from __future__ import annotations

import pytest

from canhazgpu.ledger.values import Claim, Event, NodeView, Reservation
from canhazgpu.schedulers.slurm.node_check.lost_jobs import (
    JobOnNode,
    note_of,
    parse_jobs,
    without_known,
)

JOB = JobOnNode("17", "ann", "RUNNING", 1000.0, "gres:gpu:1")
CLAIM = Claim("job:c1:17:0", "slurm", "ann", 1000, "17")
EMPTY = NodeView("n1", 2000.0, None, None)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("17|ann|RUNNING|1000|gres:gpu:1", [JOB]),
        ("17|ann|RUNNING|1000|gres/gpu:1", [JobOnNode("17", "ann", "RUNNING", 1000, "gres/gpu:1")]),
        ("17|ann|COMPLETED|1000|shard:2", [JobOnNode("17", "ann", "COMPLETED", 1000, "shard:2")]),
        ("17|ann|RUNNING|1000|N/A", []),
        ("17|ann|RUNNING|1000|gres:nic:1", []),
        ("17|ann|PENDING|1000|gres:gpu:1", []),
        # The node boots for this job.
        ("17|ann|CONFIGURING|1000|gres:gpu:1", []),
        ("17|ann|RUNNING|N/A|gres:gpu:1", []),
        ("17|ann|RUNNING|2026-11-29T07:57:52|gres:gpu:1", []),
        ("17 RUNNING", []),
        ("", []),
    ],
)
def test_lines_of_squeue(line: str, found: list[JobOnNode]) -> None:
    assert parse_jobs(line) == found


@pytest.mark.parametrize(
    ("events", "view", "left"),
    [
        ([], EMPTY, [JOB]),
        ([Event("1-0", 1001.0, "grant", "GPU-a", CLAIM)], EMPTY, []),
        ([Event("1-0", 1001.0, "epilog", "", CLAIM)], EMPTY, []),
        # The clocks of Slurm and the store may differ.
        ([Event("1-0", 990.0, "grant", "GPU-a", CLAIM)], EMPTY, []),
        # An earlier attempt of the job.
        ([Event("1-0", 100.0, "grant", "GPU-a", CLAIM)], EMPTY, [JOB]),
        (
            [Event("1-0", 1001.0, "grant", "GPU-a", Claim("job:c1:18:0", "slurm", "a", 1, "18"))],
            EMPTY,
            [JOB],
        ),
        ([Event("1-0", 1001.0, "quarantine", "GPU-a")], EMPTY, [JOB]),
        (
            [],
            NodeView("n1", 2000.0, None, None, {"GPU-a": Reservation("GPU-a", CLAIM, 500.0)}),
            [],
        ),
    ],
)
def test_only_what_neither_the_history_nor_the_ledger_knows(
    events: list[Event], view: NodeView, left: list[JobOnNode]
) -> None:
    assert without_known([JOB], events, view) == left


def test_a_reboot_is_named_where_the_job_began_before_it() -> None:
    before = note_of(JOB, "gpu:1(IDX:0)", booted_at=1500.0)
    assert (before["job_id"], before["user"], before["began"]) == ("17", "ann", 1000.0)
    assert "with gpu:1(IDX:0) when the node rebooted at" in before["what"]
    after = note_of(JOB, "gpu:1(IDX:0)", booted_at=500.0)
    assert "rebooted" not in after["what"]
    assert after["what"].startswith("Slurm has it here since ") and "RUNNING" in after["what"]
