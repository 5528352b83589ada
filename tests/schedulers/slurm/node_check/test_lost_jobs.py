"""Jobs that were on the node before it booted, as far as Slurm and the store can tell."""

from __future__ import annotations

import pytest

from canhazgpu.ledger.values import Claim, Event, NodeView, Reservation
from canhazgpu.schedulers.slurm.control.node_jobs_output import JobOnNode
from canhazgpu.schedulers.slurm.node_check.lost_jobs import note_of, without_known

JOB = JobOnNode("17", "ann", "RUNNING", 1000.0, "gres:gpu:1")
CLAIM = Claim("job:c1:17:0", "slurm", "ann", 1000, "17")
EMPTY = NodeView("n1", 2000.0, None, None)


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
