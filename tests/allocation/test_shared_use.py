"""Whose the use of a shared GPU is: the jobs that share it, or somebody else's too."""

from __future__ import annotations

import pytest

from canhazgpu.allocation.shared_use import observed_for_share
from canhazgpu.gpu.scan import GpuProcess, GpuReading, Scan
from canhazgpu.gpu.usage import UsagePolicy
from canhazgpu.ledger.co_holders import combine
from canhazgpu.ledger.port import Observation
from canhazgpu.ledger.values import Claim, NodeView, Reservation, Share
from canhazgpu.probe.node_probe import judge_scan

GPU = "GPU-0"
SHARD = Share("shard", 1, 4)


def claim(number: int, share: Share | None = SHARD) -> Claim:
    return Claim(
        f"job:c:{number}:0", "slurm", f"u{number}", 1000 + number, str(number), share=share
    )


def process(pid: int, user: int | None, *, job: int | None = None) -> GpuProcess:
    uid = None if user is None else 1000 + user
    name = None if user is None else f"u{user}"
    return GpuProcess(pid, uid, name, "python3", 3000, job=f"slurm:{job}" if job else None)


def observed(
    *processes: GpuProcess,
    used_mb: int = 9000,
    new: Claim | None = None,
    held: tuple[Claim, ...] = (),
) -> Observation:
    reading = GpuReading(0, GPU, 0, "H100", used_mb, 80000, processes)
    policy = UsagePolicy(1024, frozenset({"Xorg"}))
    holders = combine(Reservation(GPU, one, 1.0) for one in held)
    view = NodeView("n1", 2.0, None, None, {GPU: holders} if holders else {})
    seen = judge_scan(Scan("n1", 0.0, 0.0, (reading,)), policy)
    return observed_for_share(new or claim(9), seen, view)


def test_use_by_jobs_that_share_is_theirs() -> None:
    seen = observed(process(7, 1, job=1), process(8, 2), held=(claim(1), claim(2), claim(3)))
    assert seen.covered == {GPU: {claim(1).owner, claim(2).owner}}
    assert seen.ignored == {7, 8}


def test_use_that_shows_no_owner_may_be_any_holders() -> None:
    held = (claim(1), claim(2))
    every = {GPU: {one.owner for one in held}}
    assert observed(held=held).covered == every
    assert observed(process(7, None), held=held).covered == every
    assert observed(process(7, None), process(8, 1), held=held).covered == every


@pytest.mark.parametrize("other", [process(7, 5), process(7, 5, job=5), process(7, 1, job=5)])
def test_use_by_anybody_else_is_not_covered(other: GpuProcess) -> None:
    seen = observed(other, process(8, 2, job=2), held=(claim(1), claim(2)))
    assert seen.covered == {}
    assert seen.ignored == {8}


@pytest.mark.parametrize("held", [(), (claim(1, None),), (claim(1, Share("mps", 50, 100)),)])
def test_use_of_a_gpu_that_nobody_shares_is_not_covered(held: tuple[Claim, ...]) -> None:
    assert observed(process(7, 1, job=1), held=held).covered == {}


def test_use_by_the_claims_own_user_is_not_covered_by_the_claim_itself() -> None:
    assert observed(process(7, 9), new=claim(9), held=(claim(9),)).covered == {}
    assert observed(process(7, 9), new=claim(9)).covered == {}


def test_for_a_claim_of_whole_gpus_nothing_is_covered() -> None:
    seen = observed(process(7, 1, job=1), new=claim(9, None), held=(claim(1),))
    assert seen.covered == {} and seen.ignored == frozenset()


def server(uid: int, memory_mb: int = 8000) -> GpuProcess:
    return GpuProcess(5, uid, "who", "nvidia-cuda-mps-server", memory_mb, is_mps_server=True)


def test_the_mps_server_alone_is_no_use_to_the_first_share() -> None:
    assert observed(server(0), used_mb=8045).covered == {GPU: frozenset()}
    assert observed(server(1009), used_mb=8045).covered == {GPU: frozenset()}
    assert observed(server(1005), used_mb=8045).covered == {}
    assert observed(server(0), used_mb=9500).covered == {}
    assert observed(server(0), process(7, 1), used_mb=9000).covered == {}


def test_the_mps_server_beside_the_holders_is_no_intruder() -> None:
    held = (claim(1), claim(2))
    every = frozenset(one.owner for one in held)
    assert observed(server(0), process(8, 2), held=held).covered == {GPU: every}
    assert observed(server(1005), process(8, 2), held=held).covered == {}


def test_memory_below_the_threshold_of_a_stranger_is_no_use() -> None:
    small = GpuProcess(7, 1050, "eve", "Xorg2", 20)
    held = (claim(1),)
    assert observed(small, process(8, 1), held=held).covered == {GPU: {claim(1).owner}}
