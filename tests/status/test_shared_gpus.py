"""What people and programs are shown of a GPU that several jobs share."""

from __future__ import annotations

from dataclasses import replace

import pytest

from canhazgpu.allocation.holder_text import holder_text
from canhazgpu.allocation.refusal import build_refusal
from canhazgpu.errors import InputError
from canhazgpu.gpu.scan import GpuProcess, GpuReading, Scan
from canhazgpu.gpu.usage import GpuState, UsagePolicy
from canhazgpu.ledger.co_holders import combine
from canhazgpu.ledger.grant_answers import BlockedGpu
from canhazgpu.ledger.port import Observation
from canhazgpu.ledger.values import Claim, Event, NodeView, Reservation, Share
from canhazgpu.people.holdings import holdings
from canhazgpu.people.permissions import holdings_to_release
from canhazgpu.report.held_time import TimeSpan, held_times
from canhazgpu.schedulers.slurm.control.enclosing_job import EnclosingJob, find_foreign_device
from canhazgpu.status.comparison import comparison_key
from canhazgpu.status.event_format import NodeEvent, event_line, event_to_dict
from canhazgpu.status.findings import ledger_findings
from canhazgpu.status.history.owner_history import history_lines
from canhazgpu.status.json_format import status_to_dict
from canhazgpu.status.node_status import NodeStatus, node_status
from canhazgpu.status.status_filter import StatusFilter
from canhazgpu.status.table_cells import cells
from canhazgpu.status.user_filter import User

GPU = "GPU-a"
NOW = 10_000.0
POLICY = UsagePolicy(1024)


def claim(number: int, user: str, amount: int = 1) -> Claim:
    uid = 1000 + number
    share = Share("shard", amount, 4)
    return Claim(f"job:c:{number}:0", "slurm", user, uid, str(number), share=share)


ANN, BOB = claim(1, "ann"), claim(2, "bob", 2)
HELD = combine([Reservation(GPU, ANN, 1000.0), Reservation(GPU, BOB, 2000.0)])


def process(pid: int, user: str, uid: int, *, job: str | None = None, **more: object) -> GpuProcess:
    return GpuProcess(pid, uid, user, "python3", 3000, job=job, **more)  # type: ignore[arg-type]


def view(*processes: GpuProcess) -> NodeView:
    assert HELD is not None
    reading = GpuReading(0, GPU, 0, "H100", 9000, 80000, processes)
    return NodeView("n1", NOW, Scan("n1", 0.0, 0.1, (reading,)), 9990.0, {GPU: HELD})


def status(*processes: GpuProcess) -> NodeStatus:
    return node_status(view(*processes), POLICY, live=True)


def test_the_table_names_all_owners_and_their_shares() -> None:
    (gpu,) = status().gpus
    row = cells(gpu, NOW)
    assert gpu.state is GpuState.RESERVED
    assert row.user == "ann,bob"
    assert row.duration == "2h 30m 0s"
    assert row.details == "job 1 (shard 1 of 4); job 2 (shard 2 of 4)"


def test_the_json_has_a_list_beside_the_field_of_one() -> None:
    (node,) = status_to_dict(NOW, [status()])["nodes"]
    (gpu,) = node["gpus"]
    assert gpu["reservation"] == gpu["reservations"][0]
    assert [one["user"] for one in gpu["reservations"]] == ["ann", "bob"]
    assert gpu["reservations"][1]["share"] == {"kind": "shard", "amount": 2, "total": 4}


def test_the_processes_of_all_owners_are_theirs() -> None:
    (gpu,) = status(
        process(7, "ann", 1001, job="slurm:1"), process(8, "bob", 1002), process(9, "eve", 1009)
    ).gpus
    assert [one.pid for one in gpu.intruders] == [9]


@pytest.mark.parametrize("uid", [0, 1001])
def test_the_mps_server_of_root_or_an_owner_is_nobodys_intruder(uid: int) -> None:
    server = process(7, "who", uid, job="slurm:77", is_mps_server=True)
    assert status(server).gpus[0].intruders == ()
    assert status(replace(server, is_mps_server=False)).gpus[0].intruders != ()


def test_the_mps_server_of_another_user_is_an_intruder() -> None:
    server = process(7, "eve", 1009, is_mps_server=True)
    assert status(server).gpus[0].intruders == (server,)


def test_the_mps_server_is_an_intruder_on_a_gpu_of_one_owner() -> None:
    server = process(7, "root", 0, is_mps_server=True)
    alone = Reservation(GPU, replace(ANN, share=None), 1000.0)
    found = node_status(replace(view(server), reservations={GPU: alone}), POLICY)
    assert found.gpus[0].intruders == (server,)


def test_findings_name_all_owners() -> None:
    (found,) = ledger_findings(status(process(9, "eve", 1009)), POLICY, ())
    assert "reserved by ann,bob, used by PID 9 (python3)" in found.what


@pytest.mark.parametrize(("user", "shown"), [("ann", True), ("bob", True), ("eve", False)])
def test_the_gpu_concerns_each_owner(user: str, shown: bool) -> None:
    uid = {"ann": 1001, "bob": 1002}.get(user, 1009)
    assert bool(StatusFilter(users=(User(uid, user),)).apply([status()])) is shown


def test_a_job_that_comes_beside_another_is_worth_showing() -> None:
    alone = node_status(
        replace(view(), reservations={GPU: Reservation(GPU, ANN, 1000.0)}), POLICY, live=True
    )
    assert comparison_key([alone]) != comparison_key([status()])


def test_a_refusal_names_all_owners() -> None:
    assert HELD is not None
    assert holder_text(HELD, NOW) == "ann (slurm job 1), bob (slurm job 2)"
    observation = Observation(view().scan or Scan("n1", 0, 0, ()), 0.0)
    refusal = build_refusal(BlockedGpu(GPU, "reserved", HELD), observation, view())
    assert refusal.text.endswith("is reserved by ann (slurm job 1), bob (slurm job 2)")


def test_each_job_is_a_holding_of_its_own() -> None:
    assert [one.claim for one in holdings(view(), lambda one: True)] == [ANN, BOB]
    assert [one.claim for one in holdings(view(), lambda one: True, [GPU])] == [ANN, BOB]
    assert [one.claim for one in holdings(view(), lambda one: one.claim == BOB)] == [BOB]


def test_an_owner_is_told_of_its_own_job() -> None:
    with pytest.raises(InputError, match="is held by your job 2"):
        holdings_to_release(view(), 1002, [GPU], {GPU: "0"})
    with pytest.raises(InputError, match="is reserved by ann"):
        holdings_to_release(view(), 1009, [GPU], {GPU: "0"})


def test_each_job_finds_its_own_device() -> None:
    for job_id in ("1", "2"):
        assert find_foreign_device(EnclosingJob(job_id, (GPU,)), view().reservations) is None
    assert find_foreign_device(EnclosingJob("3", (GPU,)), view().reservations) is not None


def test_a_share_counts_as_its_part_of_the_time() -> None:
    span = TimeSpan(NOW - 3600, NOW)
    released = Event(
        "1-0", NOW - 1800, "release", GPU, claim(3, "eve", 4), granted_at=NOW - 3600, idle_s=100.0
    )
    found = {one.user: one for one in held_times(view(), [released], span)}
    assert found["ann"].held_s == 900
    assert found["bob"].held_s == 1800
    assert found["eve"].held_s == 1800
    assert found["eve"].idle_s == 100


def test_a_share_of_unknown_total_counts_as_the_whole_gpu() -> None:
    assert Share("shard", 1).fraction == 1.0
    assert Share("shard", 9, 4).fraction == 1.0
    assert Share("mps", 0, 100).fraction == 0.0


def test_events_tell_the_share() -> None:
    event = Event("1-0", NOW, "grant", GPU, BOB, granted_at=NOW)
    one = NodeEvent("n1", event)
    assert "bob (job 2), shard 2 of 4" in event_line(one)
    assert event_to_dict(one)["share"] == {"kind": "shard", "amount": 2, "total": 4}
    assert event_to_dict(NodeEvent("n1", Event("1-0", NOW, "note")))["share"] is None
    assert f"grant of attempt 0: {GPU} (shard 2 of 4)" in "".join(history_lines("n1", [event]))
