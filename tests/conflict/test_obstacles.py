"""What is in the way of a job, for GPUs that Slurm chose and for any number of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fakes.scripted_ledger import (
    NODE,
    failed_observation,
    free_gpu,
    reservation,
    scan_observation,
    used_gpu,
    uuid,
)

from canhazgpu.conflict.obstacles import (
    JobConflict,
    Obstacle,
    can_be_freed_by_kill,
    conflict_for_count,
    conflict_for_given,
    in_use_since_text,
    reservable_gpus,
    swap_gpus,
)
from canhazgpu.conflict.policy import ConflictCause
from canhazgpu.gpu.scan import GpuReading
from canhazgpu.gpu.usage import UsagePolicy
from canhazgpu.ledger.owner import JobOwner
from canhazgpu.ledger.values import Claim, NodeView, Quarantine, Reservation, Share

OWNER = JobOwner("c1", "12", 1)
USAGE = UsagePolicy(1024)


def view(*held: Reservation, released: dict[int, float] | None = None) -> NodeView:
    return NodeView(
        NODE,
        1.0,
        None,
        None,
        {one.gpu: one for one in held},
        {uuid(index): at for index, at in (released or {}).items()},
        {uuid(7): Quarantine(uuid(7), "needs a reset", 0.0)},
    )


def lost(index: int) -> GpuReading:
    return replace(free_gpu(index), fault="GPU is lost", memory_used_mb=None)


EIGHT = scan_observation(
    free_gpu(0),
    used_gpu(1),
    free_gpu(2),
    free_gpu(3),
    lost(4),
    free_gpu(5),
    used_gpu(6),
    free_gpu(7),
)
HELD = view(reservation(3, "job:c1:5:0"), reservation(5, "job:c1:12:0"), released={0: 9.0, 2: 5.0})


def given(*indices: int) -> dict[str, str]:
    found = conflict_for_given([uuid(index) for index in indices], EIGHT, HELD, OWNER)
    return {one.gpu.uuid: one.cause.value for one in found.obstacles}


@pytest.mark.parametrize(
    ("index", "cause"),
    [
        (0, None),
        (1, "unreserved"),
        (3, "reserved"),
        (4, "unreadable"),
        (5, None),  # held by an earlier attempt of the same job
        (7, "quarantined"),
        (9, "absent"),
    ],
)
def test_why_a_given_gpu_cannot_be_had(index: int, cause: str | None) -> None:
    assert given(index) == ({} if cause is None else {uuid(index): cause})


def test_only_the_jobs_own_gpus_are_in_its_way() -> None:
    assert given(0, 2) == {}
    assert given(0, 1, 3) == {uuid(1): "unreserved", uuid(3): "reserved"}


def test_an_unhealthy_gpu_is_held_back_before_the_ledger_says_so() -> None:
    found = replace(scan_observation(free_gpu(0)), unhealthy={uuid(0): "needs a reset"})
    situation = conflict_for_given([uuid(0)], found, view(), OWNER)
    assert situation.causes == {ConflictCause.QUARANTINED}


def test_a_later_attempts_gpus_are_not_the_jobs() -> None:
    held = view(reservation(0, "job:c1:12:2"))
    assert conflict_for_given([uuid(0)], EIGHT, held, OWNER).causes == {ConflictCause.RESERVED}


def test_nothing_is_said_of_gpus_that_could_not_be_read() -> None:
    for situation in (
        conflict_for_given([uuid(0)], failed_observation("no driver"), HELD, OWNER),
        conflict_for_count(1, failed_observation("no driver"), HELD, OWNER),
    ):
        assert situation.causes == {ConflictCause.NO_GPU_READABLE}
        assert situation.obstacles == ()


@pytest.mark.parametrize(
    ("count", "causes"),
    [
        (3, []),  # 0, 2 and the job's own 5
        (4, ["unreserved"]),
        (5, ["unreserved", "unreserved"]),
        (6, ["unreserved", "unreserved", "reserved"]),
        (7, ["unreserved", "unreserved", "reserved", "quarantined"]),
        (8, ["unreserved", "unreserved", "reserved", "quarantined", "unreadable"]),
        (9, ["unreserved", "unreserved", "reserved", "quarantined", "unreadable", "absent"]),
    ],
)
def test_what_comes_free_most_easily_is_in_the_way_of_any_gpus(
    count: int, causes: list[str]
) -> None:
    found = conflict_for_count(count, EIGHT, HELD, OWNER)
    assert [one.cause.value for one in found.obstacles] == causes


def test_a_gpu_that_can_be_cleared_comes_first() -> None:
    found = conflict_for_count(4, EIGHT, HELD, OWNER, lambda gpu: gpu.index == 6)
    assert [one.gpu.index for one in found.obstacles] == [6]


def test_substitutes_keep_what_is_clean_and_take_the_least_recently_released() -> None:
    situation = conflict_for_given([uuid(0), uuid(1)], EIGHT, HELD, OWNER)
    assert situation.clean == (uuid(5), uuid(2), uuid(0))
    assert swap_gpus([uuid(0), uuid(1)], situation, 2) == (uuid(0), uuid(5))
    assert swap_gpus([uuid(1), uuid(3)], situation, 2) == (uuid(5), uuid(2))
    assert swap_gpus([], situation, 3) == (uuid(5), uuid(2), uuid(0))
    assert swap_gpus([uuid(1)], situation, 4) is None


def test_gpus_of_another_kind_are_neither_substitutes_nor_in_the_way() -> None:
    kind = {uuid(0), uuid(1), uuid(6)}
    found = conflict_for_given([uuid(1)], EIGHT, HELD, OWNER, kind)
    assert found.clean == (uuid(0),)
    assert swap_gpus([uuid(1)], found, 1) == (uuid(0),)
    assert swap_gpus([uuid(1), uuid(6)], found, 2) is None
    counted = conflict_for_count(3, EIGHT, HELD, OWNER, among=kind)
    assert counted.clean == (uuid(0),)
    assert {one.gpu.uuid for one in counted.obstacles} == {uuid(1), uuid(6)}
    assert conflict_for_count(1, EIGHT, HELD, OWNER, among=set()).causes == {ConflictCause.ABSENT}


def test_what_a_job_that_runs_all_the_same_holds() -> None:
    wanted = [uuid(index) for index in (0, 1, 4, 7)]
    situation = conflict_for_given(wanted, EIGHT, HELD, OWNER)
    assert reservable_gpus(wanted, situation) == (uuid(0), uuid(1))


def cleared(spared: dict[int, str], *obstacles: Obstacle, usage: UsagePolicy = USAGE) -> bool:
    return can_be_freed_by_kill(obstacles, spared, usage)


def test_processes_are_ended_only_where_that_frees_every_gpu() -> None:
    one = Obstacle(used_gpu(1, pid=77), ConflictCause.UNRESERVED)
    other = Obstacle(used_gpu(2, pid=78), ConflictCause.UNRESERVED)
    assert cleared({77: "", 78: ""}, one, other)
    assert not cleared({77: "", 78: "root is a protected user"}, one, other)
    assert not cleared({77: ""}, one, other)
    assert not cleared({77: ""}, one, Obstacle(free_gpu(3), ConflictCause.RESERVED))
    # Memory of no process: there is nothing to end.
    assert not cleared({}, Obstacle(replace(used_gpu(1), processes=()), ConflictCause.UNRESERVED))


def test_processes_that_do_not_count_are_not_ended() -> None:
    both = replace(
        used_gpu(1),
        processes=(*used_gpu(1, pid=77).processes, *used_gpu(1, "root", pid=5).processes),
    )
    ignored = UsagePolicy(1024, ignore_users=frozenset({"root"}))
    spared = {77: "", 5: "root is a protected user"}
    assert not cleared(spared, Obstacle(both, ConflictCause.UNRESERVED))
    assert cleared(spared, Obstacle(both, ConflictCause.UNRESERVED), usage=ignored)


def test_since_when_the_first_gpu_has_been_in_use() -> None:
    situation = JobConflict(
        (
            Obstacle(free_gpu(0), ConflictCause.RESERVED),
            Obstacle(used_gpu(1, pid=77), ConflictCause.UNRESERVED),
        )
    )
    assert in_use_since_text(situation, {77: 60.0, 78: 1.0}, str) == " (since 60.0)"
    assert in_use_since_text(situation, {}, str) == ""
    assert in_use_since_text(JobConflict(), {77: 1.0}, str) == ""
    shared = replace(
        used_gpu(1), processes=(*used_gpu(1, pid=77).processes, *used_gpu(1, pid=78).processes)
    )
    by_two = JobConflict((Obstacle(shared, ConflictCause.UNRESERVED),))
    assert in_use_since_text(by_two, {77: 60.0, 78: 30.0}, str) == " (since 30.0)"


def test_each_process_in_the_way_is_named_once() -> None:
    situation = JobConflict(
        tuple(Obstacle(used_gpu(index, pid=77), ConflictCause.UNRESERVED) for index in (1, 2))
    )
    assert [process.pid for process in situation.processes] == [77]


SHARE = Share("shard", 1, 4)
CLAIM = Claim(OWNER.token, "slurm", "ann", 1000, "12", share=SHARE)


def shared_gpu(index: int, share: Share | None = SHARE) -> Reservation:
    one = reservation(index, f"job:c1:{90 + index}:0")
    return replace(one, claim=replace(one.claim, share=share))


def test_jobs_that_share_are_no_obstacle_to_a_share() -> None:
    now = view(shared_gpu(0), shared_gpu(1, None), shared_gpu(2, Share("mps", 50, 100)))
    seen = scan_observation(*map(free_gpu, range(3)))
    found = conflict_for_given([uuid(0), uuid(1), uuid(2)], seen, now, OWNER, claim=CLAIM)
    assert [one.gpu.uuid for one in found.obstacles] == [uuid(1), uuid(2)]
    assert found.causes == {ConflictCause.RESERVED}


def test_a_shared_gpu_is_an_obstacle_to_any_other_claim() -> None:
    seen = scan_observation(free_gpu(0))
    whole = replace(CLAIM, share=None)
    for claim in (None, whole):
        found = conflict_for_given([uuid(0)], seen, view(shared_gpu(0)), OWNER, claim=claim)
        assert found.causes == {ConflictCause.RESERVED}
    assert conflict_for_count(1, seen, view(shared_gpu(0)), OWNER).causes == {
        ConflictCause.RESERVED
    }


def test_use_of_a_shared_gpu_is_an_obstacle_unless_it_is_covered() -> None:
    seen = scan_observation(used_gpu(0))
    now = view(shared_gpu(0))
    found = conflict_for_given([uuid(0)], seen, now, OWNER, claim=CLAIM)
    assert found.causes == {ConflictCause.UNRESERVED}
    covered = replace(seen, covered={uuid(0): frozenset()})
    assert not conflict_for_given([uuid(0)], covered, now, OWNER, claim=CLAIM).causes
