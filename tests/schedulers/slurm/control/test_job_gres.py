"""What ``scontrol show job -d`` says of a job's share, as Slurm 22.05, 24.11 and 26.05 print it."""

from __future__ import annotations

import pytest

from canhazgpu.errors import SchedulerError
from canhazgpu.ledger.values import Share
from canhazgpu.schedulers.slurm.control.job_gres import gres_on_node, share_in_gres

JOB = """JobId=1 JobName={name}
   UserId=root(0) GroupId=root(0) MCS_label=N/A
   NodeList=n[1-3]
   JOB_GRES=shard:3
     Nodes=n[1-2] CPU_IDs=0 Mem=0 GRES=shard:1(IDX:0)
     Nodes=n3 CPU_IDs=0-3 Mem=100 GRES=gpu:h100:2(IDX:0,2)
   MinCPUsNode=1 MinMemoryNode=0 MinTmpDiskNode=0
"""


@pytest.mark.parametrize(
    ("node", "gres"),
    [("n1", "shard:1(IDX:0)"), ("n2", "shard:1(IDX:0)"), ("n3", "gpu:h100:2(IDX:0,2)")],
)
def test_each_node_has_its_own(node: str, gres: str) -> None:
    assert gres_on_node(JOB.format(name="train"), node) == gres


@pytest.mark.parametrize("text", ["", "slurm_load_jobs error: Invalid job id", JOB])
def test_a_node_that_is_not_named_is_refused(text: str) -> None:
    with pytest.raises(SchedulerError, match="0 times instead of once"):
        gres_on_node(text, "n4")


def test_a_name_that_imitates_the_line_makes_the_answer_invalid() -> None:
    forged = "x\n     Nodes=n3 CPU_IDs=0 Mem=0 GRES=shard:1(1/4)"
    with pytest.raises(SchedulerError, match="2 times instead of once"):
        gres_on_node(JOB.format(name=forged), "n3")


@pytest.mark.parametrize(
    ("gres", "share"),
    [
        ("shard:1(IDX:0)", Share("shard", 1)),
        ("shard:1(1/4,0/4)", Share("shard", 1, 4)),
        ("shard:6(2/4,4/4,0/4)", Share("shard", 6, 8)),
        ("shard:a100:2(0/8,2/8)", Share("shard", 2, 8)),
        ("mps:50(50/100,0/100)", Share("mps", 50, 100)),
        ("licence:1,shard:2(0/4,2/4)", Share("shard", 2, 4)),
        ("gpu:1(IDX:1)", None),
        ("gpu:h100:2(IDX:0,2),fpga:1(IDX:0)", None),
        ("gpu:3090:2(IDX:0-1)", None),
        ("", None),
    ],
)
def test_the_share(gres: str, share: Share | None) -> None:
    assert share_in_gres(gres) == share


@pytest.mark.parametrize("gres", ["gpu:1(IDX:0),shard:1(0/4,1/4)", "shard:1(1/4),mps:50(0/100)"])
def test_several_kinds_on_one_node_are_refused(gres: str) -> None:
    with pytest.raises(SchedulerError, match="in jobs of their own"):
        share_in_gres(gres)


@pytest.mark.parametrize("gres", ["shard", "shard:x(1/4)", "shard:1(1/4", "?"])
def test_what_is_not_understood_is_refused(gres: str) -> None:
    with pytest.raises(SchedulerError, match="not understood"):
        share_in_gres(gres)
