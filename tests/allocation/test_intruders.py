"""Whose memory on a reserved GPU is use by others, and whose is too little for an alarm."""

from __future__ import annotations

from dataclasses import replace

import pytest

from canhazgpu.allocation.coverage import ANY_PID_NAMESPACE
from canhazgpu.allocation.intruders import OtherProcesses, other_processes
from canhazgpu.gpu.scan import GpuProcess, GpuReading, Scan
from canhazgpu.gpu.usage import UsagePolicy
from canhazgpu.ledger.values import Claim, NodeView, Reservation
from canhazgpu.status.findings import ledger_findings
from canhazgpu.status.json_format import status_to_dict
from canhazgpu.status.node_status import node_status
from canhazgpu.status.validation_cell import validation_text

POLICY = UsagePolicy(1024, ignore_users=frozenset({"monitor"}))
ALICE = Claim("run:1", "run", "alice", 1001)
CAROL = Claim("run:2", "run", "carol", 1003)
JOB = Claim("job:c:5:0", "slurm", "alice", 1001, job_id="5")


def process(pid: int, user: str | None, memory_mb: int | None, **more: str) -> GpuProcess:
    uid = {"root": 0, "alice": 1001, "bob": 1002, "carol": 1003, "monitor": 9}.get(user or "")
    return GpuProcess(pid, uid, user, f"p{pid}", memory_mb, job=more.get("job"))


OWN = process(1, "alice", 70000)
XORG = process(2, "root", 4)
BOBS = process(3, "bob", 1020)


def others(*processes: GpuProcess, claims: tuple[Claim, ...] = (ALICE,)) -> OtherProcesses:
    return other_processes(claims, processes, POLICY, ANY_PID_NAMESPACE)


def test_a_display_servers_few_megabytes_are_no_alarm() -> None:
    assert others(OWN, XORG) == OtherProcesses(below_threshold=(XORG,))


def test_the_others_count_together_up_to_the_threshold() -> None:
    assert others(XORG, BOBS) == OtherProcesses(below_threshold=(XORG, BOBS))
    more = replace(XORG, memory_mb=5)
    assert others(more, BOBS) == OtherProcesses(intruders=(more, BOBS))


def test_the_owners_memory_never_counts() -> None:
    assert others(OWN, BOBS).intruders == ()
    assert others(OWN).below_threshold == ()


@pytest.mark.parametrize("user", ["root", "bob"])
def test_unknown_memory_is_use(user: str) -> None:
    unknown = process(4, user, None)
    assert others(OWN, unknown) == OtherProcesses(intruders=(unknown,))


def test_whose_owner_is_unknown_and_who_is_ignored_neither_counts_nor_intrudes() -> None:
    hidden, ignored = process(5, None, 9000), process(6, "monitor", 9000)
    assert others(hidden, ignored, BOBS) == OtherProcesses(below_threshold=(BOBS,))


def test_whoever_holds_the_gpu_too_is_no_other() -> None:
    carols = process(7, "carol", 5000)
    assert others(carols).intruders == (carols,)
    assert others(carols, claims=(ALICE, CAROL)) == OtherProcesses()
    bobs = process(3, "bob", 5000)
    assert others(bobs, carols, claims=(ALICE, CAROL)).intruders == (bobs,)


def test_of_an_unidentified_job_only_use_is_in_doubt() -> None:
    large = process(8, "bob", 5000, job="slurm:?s5K1KKYAYG5D00")
    assert others(large, claims=(JOB,)) == OtherProcesses(unidentified=(large,))
    small = replace(large, memory_mb=4)
    assert others(small, claims=(JOB,)) == OtherProcesses(below_threshold=(small,))
    # With others' memory it may be use, and who uses the GPU then is not known.
    assert others(small, BOBS, claims=(JOB,)).unidentified == ()
    assert others(replace(small, memory_mb=5), BOBS, claims=(JOB,)) == OtherProcesses(
        unidentified=(replace(small, memory_mb=5),), below_threshold=(BOBS,)
    )


def test_below_the_threshold_the_reservation_is_unused_and_nothing_is_found() -> None:
    reading = GpuReading(0, "GPU-0", 0, "H100", 49, 80000, (XORG,))
    held = {"GPU-0": Reservation("GPU-0", ALICE, 500.0)}
    view = NodeView("n1", 600.0, Scan("n1", 0.0, 0.1, (reading,)), 599.0, held)

    status = node_status(view, POLICY, live=True)

    (gpu,) = status.gpus
    assert validation_text(gpu) == "no usage detected"
    assert validation_text(gpu, wide=True) == (
        "no usage detected (4MB of root below the threshold: PID 2 (p2))"
    )
    assert ledger_findings(status, POLICY, set()) == []
    shown = status_to_dict(600.0, [status])["nodes"][0]["gpus"][0]
    assert [one["pid"] for one in shown["others_below_threshold"]] == [2]
    assert shown["intruders"] == []
