"""The order of scan, grant and second look, and what a user is told; ledger and probe scripted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from fakes.scripted_ledger import (
    NODE,
    ScriptedLedger,
    ScriptedProbe,
    ScriptedScan,
    failed_observation,
    free_gpu,
    reservation,
    scan_observation,
    used_gpu,
    uuid,
)

from canhazgpu.allocation.allocator import MAX_SCANS, GpuAllocator, Grant
from canhazgpu.allocation.liveness import LivenessContext
from canhazgpu.allocation.refusal import Refusal, RefusalKind, too_few_gpus_text
from canhazgpu.errors import DeadlineError, VoidGrantError
from canhazgpu.gpu.scan import GpuReading
from canhazgpu.ledger.grant_answers import (
    BlockedGpu,
    CommitRefusal,
    GrantedGpus,
    QueuePosition,
    TooFewGpus,
)
from canhazgpu.ledger.owner import JobOwner
from canhazgpu.ledger.port import JOB_GRANT_OPTIONS, GrantOptions, Observation
from canhazgpu.ledger.values import Claim, Quarantine, Reservation, Waiter
from canhazgpu.node.process_id import ProcessId

OWNER = JobOwner("c1", "7", 0)
CLAIM = Claim(OWNER.token, "slurm", "ann", 1000, "7", boot_id="this boot")
ALL_FREE = scan_observation(free_gpu(0), free_gpu(1))
STALE = TooFewGpus(1, 0, 0, 0, 0, stale=1)
FULL = TooFewGpus(1, 0, 2, 0, 0, 0)


LIVING, DEAD = ProcessId(10, 1), ProcessId(11, 1)


def service(
    ledger: ScriptedLedger, probe: ScriptedProbe, boot_id: str | None = "this boot"
) -> GpuAllocator:
    return GpuAllocator(
        NODE, LivenessContext(boot_id, None, lambda process: process == LIVING), probe, ledger
    )


def named(*indices: int) -> object:
    return lambda gpus: [uuid(index) for index in indices]


def test_a_scan_under_way_is_used_and_only_the_second_look_is_started() -> None:
    ledger, probe = ScriptedLedger([GrantedGpus((uuid(0),))]), ScriptedProbe(ALL_FREE)
    first = ScriptedScan(ALL_FREE)
    granted = service(ledger, probe).reserve_count(CLAIM, 1, first)
    assert granted == Grant((free_gpu(0),), (free_gpu(0), free_gpu(1)))
    assert first.observed == 1
    assert ledger.reserve_calls == [(first.found, 1)]
    assert [scan.observed for scan in probe.scans] == [1]


def test_who_asked_is_told_the_gpus_before_the_grant_is_final() -> None:
    ledger, told = ScriptedLedger([GrantedGpus((uuid(1),))]), []
    allocator = GpuAllocator(
        NODE,
        LivenessContext("this boot", None, lambda process: True),
        ScriptedProbe(ALL_FREE),
        ledger,
        before_commit=lambda gpus: told.append((tuple(gpus), list(ledger.committed))),
    )
    assert isinstance(allocator.reserve_count(CLAIM, 1), Grant)
    assert told == [((uuid(1),), [])]
    assert ledger.committed == [CLAIM.owner]


def test_without_a_scan_under_way_one_is_started() -> None:
    probe = ScriptedProbe(ALL_FREE)
    granted = service(ScriptedLedger([GrantedGpus((uuid(1),))]), probe).reserve_count(CLAIM, 1)
    assert isinstance(granted, Grant)
    assert len(probe.scans) == 2


def test_the_wanted_gpus_are_selected_from_each_scan() -> None:
    selections: list[Sequence[GpuReading]] = []

    def select(gpus: Sequence[GpuReading]) -> list[str]:
        selections.append(gpus)
        return [gpus[-1].uuid]

    ledger = ScriptedLedger([BlockedGpu(uuid(1), "stale"), GrantedGpus((uuid(2),))])
    probe = ScriptedProbe(ALL_FREE, scan_observation(free_gpu(0), free_gpu(1), free_gpu(2)))
    granted = service(ledger, probe).reserve_given(CLAIM, select)
    assert isinstance(granted, Grant)
    assert [wanted for _, wanted in ledger.reserve_calls] == [[uuid(1)], [uuid(2)]]
    assert [len(gpus) for gpus in selections] == [2, 3]


@pytest.mark.parametrize("how", ["count", "given"])
def test_a_stale_scan_is_repeated(how: str) -> None:
    stale = STALE if how == "count" else BlockedGpu(uuid(0), "stale")
    ledger, probe = ScriptedLedger([stale, GrantedGpus((uuid(0),))]), ScriptedProbe(ALL_FREE)
    one = service(ledger, probe)
    granted = one.reserve_count(CLAIM, 1) if how == "count" else one.reserve_given(CLAIM, named(0))
    assert isinstance(granted, Grant)
    assert len(ledger.reserve_calls) == 2
    assert ledger.released == []


@pytest.mark.parametrize("how", ["count", "given"])
def test_what_stays_stale_is_refused_after_the_last_round(how: str) -> None:
    stale = STALE if how == "count" else BlockedGpu(uuid(0), "stale")
    ledger = ScriptedLedger([stale])
    one = service(ledger, ScriptedProbe(ALL_FREE))
    refusal = one.reserve_count(CLAIM, 1) if how == "count" else one.reserve_given(CLAIM, named(0))
    assert refusal == Refusal("the GPUs of n1 kept changing hands; try again")
    assert len(ledger.reserve_calls) == MAX_SCANS


def test_stale_gpus_that_would_not_suffice_are_no_reason_to_scan_again() -> None:
    ledger = ScriptedLedger([TooFewGpus(3, 1, 0, 0, 0, stale=1)])
    scan = scan_observation(free_gpu(0), free_gpu(1), free_gpu(2))
    refusal = service(ledger, ScriptedProbe(scan)).reserve_count(CLAIM, 3)
    assert refusal == Refusal("Not enough GPUs available. Requested: 3, Available: 1")
    assert len(ledger.reserve_calls) == 1


def test_a_counted_gpu_that_somebody_takes_is_given_back_and_another_one_tried() -> None:
    ledger = ScriptedLedger([GrantedGpus((uuid(0),)), GrantedGpus((uuid(1),))])
    taken = scan_observation(used_gpu(0), free_gpu(1))
    probe = ScriptedProbe(ALL_FREE, taken, taken, taken)
    granted = service(ledger, probe).reserve_count(CLAIM, 1)
    assert isinstance(granted, Grant)
    assert granted.gpus == (free_gpu(1),)
    assert ledger.released == [(OWNER.token, "in use at the second look")]
    assert uuid(0) in ledger.reserve_calls[1][0].in_use


def test_a_given_gpu_that_somebody_takes_is_given_back_and_the_intruder_named() -> None:
    ledger = ScriptedLedger([GrantedGpus((uuid(0),)), BlockedGpu(uuid(0), "unreserved")])
    probe = ScriptedProbe(ALL_FREE, scan_observation(used_gpu(0), free_gpu(1)))
    refusal = service(ledger, probe).reserve_given(CLAIM, named(0))
    assert refusal == Refusal(
        "GPU 0 (GPU-0) on n1 is in use by mallory WITHOUT RESERVATION:"
        " 5000MB used by PID 77 (python3)"
    )
    assert ledger.released == [(OWNER.token, "in use at the second look")]


def test_someone_who_moves_in_each_time_is_named_in_the_end() -> None:
    ledger = ScriptedLedger([GrantedGpus((uuid(0),))])
    probe = ScriptedProbe(*[ALL_FREE, scan_observation(used_gpu(0), free_gpu(1))] * MAX_SCANS)
    refusal = service(ledger, probe).reserve_count(CLAIM, 1)
    assert isinstance(refusal, Refusal)
    assert "in use by mallory WITHOUT RESERVATION" in refusal.reason
    assert len(ledger.released) == MAX_SCANS


def test_a_gpu_gone_at_the_second_look_is_given_back() -> None:
    ledger = ScriptedLedger([GrantedGpus((uuid(0),))])
    probe = ScriptedProbe(*[ALL_FREE, scan_observation(free_gpu(1))] * MAX_SCANS)
    refusal = service(ledger, probe).reserve_count(CLAIM, 1)
    assert refusal == Refusal("GPU (GPU-0) on n1 cannot be read: the driver no longer shows it")
    assert len(ledger.released) == MAX_SCANS


def test_a_second_look_that_fails_grants_nothing() -> None:
    ledger = ScriptedLedger([GrantedGpus((uuid(0),))])
    refusal = service(
        ledger, ScriptedProbe(ALL_FREE, failed_observation("driver gone"))
    ).reserve_count(CLAIM, 1)
    assert refusal == Refusal("n1: driver gone", kind=RefusalKind.FAULT)
    assert ledger.released == [(OWNER.token, "in use at the second look")]


def test_a_repeated_grant_needs_no_second_look() -> None:
    ledger = ScriptedLedger([GrantedGpus((uuid(0),), repeated=True)])
    probe = ScriptedProbe(scan_observation(used_gpu(0), free_gpu(1)))
    granted = service(ledger, probe).reserve_count(CLAIM, 1)
    assert granted == Grant((used_gpu(0),), (used_gpu(0), free_gpu(1)))
    assert len(probe.scans) == 1
    assert ledger.released == []


def test_a_grant_is_made_final_after_the_second_look() -> None:
    ledger = ScriptedLedger([GrantedGpus((uuid(0),))])
    assert isinstance(service(ledger, ScriptedProbe(ALL_FREE)).reserve_count(CLAIM, 1), Grant)
    assert ledger.committed == [CLAIM.owner]
    ledger = ScriptedLedger([GrantedGpus((uuid(0),))])
    in_use = scan_observation(used_gpu(0), free_gpu(1))
    service(ledger, ScriptedProbe(ALL_FREE, in_use)).reserve_count(CLAIM, 1)
    assert ledger.released[0][0] == CLAIM.owner


@pytest.mark.parametrize(
    ("refusal", "error"),
    [
        (CommitRefusal.FENCED, VoidGrantError),
        (CommitRefusal.PEER_GONE, VoidGrantError),
        (CommitRefusal.LATE, DeadlineError),
        (CommitRefusal.CANCELLED, DeadlineError),
    ],
)
def test_a_grant_that_does_not_stand_is_none(
    refusal: CommitRefusal, error: type[Exception]
) -> None:
    """Of an attempt that has ended nothing is left to do; another job is not started unchecked."""
    ledger = ScriptedLedger([GrantedGpus((uuid(0),))], commit_refusal=refusal)
    with pytest.raises(error, match=refusal.value):
        service(ledger, ScriptedProbe(ALL_FREE)).reserve_count(CLAIM, 1)


def test_a_scan_that_fails_asks_nothing_of_the_ledger() -> None:
    ledger = ScriptedLedger([GrantedGpus((uuid(0),))])
    refusal = service(ledger, ScriptedProbe(failed_observation("no answer in 10 s"))).reserve_count(
        CLAIM, 1
    )
    assert refusal == Refusal("n1: no answer in 10 s", kind=RefusalKind.FAULT)
    assert ledger.reserve_calls == []


def test_what_an_earlier_boot_holds_is_released_once_and_then_granted() -> None:
    old = [reservation(0, "job:c1:5:0", "boot 1"), reservation(1, "job:c1:5:0", "boot 1")]
    ledger = ScriptedLedger([FULL, GrantedGpus((uuid(0),))], old)
    granted = service(ledger, ScriptedProbe(ALL_FREE)).reserve_count(CLAIM, 1)
    assert isinstance(granted, Grant)
    assert ledger.released == [("job:c1:5:0", "node rebooted")]


def test_a_gpu_in_the_way_since_an_earlier_boot_is_released() -> None:
    old = reservation(0, "job:c1:5:0", "boot 1")
    ledger = ScriptedLedger([BlockedGpu(uuid(0), "reserved", old), GrantedGpus((uuid(0),))], [old])
    granted = service(ledger, ScriptedProbe(ALL_FREE)).reserve_given(CLAIM, named(0))
    assert isinstance(granted, Grant)
    assert ledger.released == [("job:c1:5:0", "node rebooted")]


@pytest.mark.parametrize(
    ("recorded", "ours"), [(None, "this boot"), ("boot 1", None), ("same", "same")]
)
def test_what_may_be_of_this_boot_is_never_reaped(recorded: str | None, ours: str | None) -> None:
    held = [reservation(index, "job:c1:5:0", recorded) for index in range(2)]
    ledger = ScriptedLedger([FULL], held)
    refusal = service(ledger, ScriptedProbe(ALL_FREE), ours).reserve_count(CLAIM, 1)
    assert refusal == Refusal("Not enough GPUs available. Requested: 1, Available: 0")
    assert ledger.released == []
    assert len(ledger.reserve_calls) == 1


def test_the_job_releases_its_attempts_up_to_the_given_one_and_nobody_elses() -> None:
    owners = [
        "job:a:1:0",
        "job:a:1:2",
        "job:a:1:3",  # a later attempt
        "job:a:11:0",  # another job
        "job:b:1:0",  # another cluster
        "job:a:1:1:0",  # a cluster called "a:1"
        "job:a:1:-1",
        "job:a:1:",
        "run:1:a:1:0",
    ]
    held = [reservation(index, owner) for index, owner in enumerate(owners)]
    ledger = ScriptedLedger([FULL], held)
    done = service(ledger, ScriptedProbe()).release_job(JobOwner("a", "1", 2), "job ended")
    assert done == [uuid(0), uuid(1)]
    assert ledger.released == [("job:a:1:0", "job ended"), ("job:a:1:2", "job ended")]


def test_a_cluster_whose_name_ends_like_a_job_covers_its_own_only() -> None:
    assert JobOwner("a:1", "1", 5).covers("job:a:1:1:0")
    assert not JobOwner("a:1", "1", 5).covers("job:a:1:0")
    assert not JobOwner("a", "1", 5).covers("job:a:1:1:0")


def test_an_owner_is_released_here_and_a_scan_published() -> None:
    ledger = ScriptedLedger([FULL], [reservation(0, "job:c1:5:0")])
    one = service(ledger, ScriptedProbe(ALL_FREE))
    assert one.release("job:c1:5:0", "done") == [uuid(0)]
    one.scan_and_publish()
    assert ledger.published == [ALL_FREE]


@pytest.mark.parametrize(
    ("short", "text"),
    [
        (
            TooFewGpus(3, 1, 1, 2, 0, 0),
            "Not enough GPUs available. Requested: 3, Available: 1 (2 GPUs in use without"
            " reservation - run 'canhazgpu status' for details)",
        ),
        (TooFewGpus(9, 4, 0, 0, 0, 0), "Not enough GPUs available. Requested: 9, Available: 4"),
    ],
)
def test_too_few_gpus_are_told_in_the_known_sentence(short: TooFewGpus, text: str) -> None:
    assert too_few_gpus_text(short) == text


def test_too_few_gpus_name_each_intruder_but_not_who_uses_what_is_reserved() -> None:
    ledger = ScriptedLedger([TooFewGpus(1, 0, 1, 1, 0, 0)], [reservation(0, "job:c1:5:0")])
    probe = ScriptedProbe(scan_observation(used_gpu(0, "ann"), used_gpu(1, "mallory")))
    refusal = service(ledger, probe).reserve_count(CLAIM, 1)
    assert isinstance(refusal, Refusal)
    assert refusal.text == (
        "Not enough GPUs available. Requested: 1, Available: 0 (1 GPUs in use without"
        " reservation - run 'canhazgpu status' for details);"
        " GPU 1 (GPU-1) on n1 is in use by mallory WITHOUT RESERVATION:"
        " 5000MB used by PID 77 (python3)"
    )


SILENT = GpuReading(1, uuid(1), 1, "H100", 5000, 80000)
BROKEN = GpuReading(1, uuid(1), 1, "H100", None, None, fault="GPU is lost")


@pytest.mark.parametrize(
    ("blocked", "reading", "text"),
    [
        (
            BlockedGpu(uuid(1), "reserved", reservation(1, "job:c1:5:0")),
            free_gpu(1),
            "GPU 1 (GPU-1) on n1 is reserved by ann (slurm job 5)",
        ),
        (
            BlockedGpu(uuid(1), "unreserved"),
            SILENT,
            "GPU 1 (GPU-1) on n1 is in use WITHOUT RESERVATION: 5000MB used by no process shown",
        ),
        (
            BlockedGpu(uuid(1), "unknown"),
            BROKEN,
            "GPU 1 (GPU-1) on n1 cannot be read: GPU is lost",
        ),
        (BlockedGpu(uuid(1), "quarantined"), free_gpu(1), "GPU 1 (GPU-1) on n1 is quarantined"),
        (BlockedGpu(uuid(9), "unknown"), free_gpu(1), "GPU (GPU-9) on n1 cannot be read:"),
    ],
)
def test_a_given_gpu_in_the_way_is_told_with_its_reason(
    blocked: BlockedGpu, reading: GpuReading, text: str
) -> None:
    ledger = ScriptedLedger([blocked])
    refusal = service(ledger, ScriptedProbe(scan_observation(free_gpu(0), reading))).reserve_given(
        CLAIM, named(1)
    )
    assert isinstance(refusal, Refusal)
    assert refusal.reason.startswith(text)


def test_a_quarantined_gpu_is_refused_with_its_reason() -> None:
    held_back = Quarantine(uuid(1), "row remap pending", 1.0)
    ledger = ScriptedLedger([BlockedGpu(uuid(1), "quarantined")], quarantined=[held_back])
    refusal = service(
        ledger, ScriptedProbe(scan_observation(free_gpu(0), free_gpu(1)))
    ).reserve_given(CLAIM, named(1))
    assert isinstance(refusal, Refusal)
    assert refusal.text == "GPU 1 (GPU-1) on n1 is quarantined: row remap pending"


def test_too_few_gpus_tell_of_those_held_back() -> None:
    held_back = Quarantine(uuid(1), "row remap pending", 1.0)
    ledger = ScriptedLedger([TooFewGpus(2, 1, 0, 0, 1, 0)], quarantined=[held_back])
    refusal = service(
        ledger, ScriptedProbe(scan_observation(free_gpu(0), free_gpu(1)))
    ).reserve_count(CLAIM, 2)
    assert isinstance(refusal, Refusal)
    assert refusal.details == ("GPU 1 (GPU-1) on n1 is quarantined: row remap pending",)


def test_more_than_the_node_has_is_refused_for_ever() -> None:
    ledger = ScriptedLedger([TooFewGpus(3, 2, 0, 0, 0, 0)])
    refusal = service(ledger, ScriptedProbe(ALL_FREE)).reserve_count(CLAIM, 3)
    assert refusal == Refusal("n1 has 2 GPUs; 3 were asked for", kind=RefusalKind.NEVER)


def run_of(process: ProcessId, boot_id: str = "this boot") -> Claim:
    return Claim("run:x", "run", "eve", 9, boot_id=boot_id, processes=(process,))


def waiter(process: ProcessId) -> Waiter:
    return Waiter(f"run:{process.pid}", "eve", 9, 1, boot_id="this boot", processes=(process,))


@pytest.mark.parametrize("how", ["count", "given"])
def test_a_run_whose_processes_are_gone_makes_room(how: str) -> None:
    blocked = FULL if how == "count" else BlockedGpu(uuid(0), "reserved")
    ledger = ScriptedLedger(
        [blocked, GrantedGpus((uuid(0),))], [Reservation(uuid(0), run_of(DEAD), 1.0)]
    )
    one = service(ledger, ScriptedProbe(ALL_FREE))
    granted = one.reserve_count(CLAIM, 1) if how == "count" else one.reserve_given(CLAIM, named(0))
    assert isinstance(granted, Grant)
    assert ledger.released == [("run:x", "its processes are gone")]


def test_a_run_that_lives_keeps_its_gpus() -> None:
    ledger = ScriptedLedger([FULL], [Reservation(uuid(0), run_of(LIVING), 1.0)])
    assert isinstance(service(ledger, ScriptedProbe(ALL_FREE)).reserve_count(CLAIM, 1), Refusal)
    assert ledger.released == []


def test_a_dead_head_of_the_queue_is_dropped_and_the_next_one_tries_again() -> None:
    ledger = ScriptedLedger(
        [QueuePosition(2), GrantedGpus((uuid(0),))], queue=[waiter(DEAD), waiter(LIVING)]
    )
    granted = service(ledger, ScriptedProbe(ALL_FREE)).reserve_count(CLAIM, 1)
    assert isinstance(granted, Grant)
    assert ledger.left_queue == [("run:11", "its processes are gone")]


@pytest.mark.parametrize(
    ("position", "text"), [(2, "1 other waits for GPUs of n1"), (4, "3 others wait for GPUs of n1")]
)
def test_whoever_lives_and_waits_goes_first(position: int, text: str) -> None:
    ledger = ScriptedLedger([QueuePosition(position)], queue=[waiter(LIVING)])
    refusal = service(ledger, ScriptedProbe(ALL_FREE)).reserve_count(CLAIM, 1)
    assert isinstance(refusal, Refusal)
    assert refusal.kind is RefusalKind.QUEUED
    assert refusal.reason.startswith(text)


def test_the_living_view_is_without_the_dead() -> None:
    ledger = ScriptedLedger(
        [],
        [Reservation(uuid(0), run_of(DEAD), 1.0), reservation(1, "job:c1:5:0")],
        queue=[waiter(DEAD), waiter(LIVING)],
    )
    view = service(ledger, ScriptedProbe()).reaped_view()
    assert set(view.reservations) == {uuid(1)}
    assert [one.owner for one in view.queue] == ["run:10"]


def test_of_jobs_that_share_a_gpu_only_the_dead_are_released() -> None:
    dead = reservation(0, "job:c1:4:0", boot_id="an earlier boot")
    ledger = ScriptedLedger([], [dead, reservation(0, "job:c1:5:0")])
    view = service(ledger, ScriptedProbe()).reaped_view()
    assert ledger.released == [("job:c1:4:0", "node rebooted")]
    assert [one.claim.owner for one in view.all_reservations()] == ["job:c1:5:0"]


@pytest.mark.parametrize("how", ["count", "given"])
def test_force_takes_what_somebody_uses_and_tells_which(how: str) -> None:
    in_the_way = (
        TooFewGpus(1, 0, 0, 1, 0, 0) if how == "count" else BlockedGpu(uuid(0), "unreserved")
    )
    ledger = ScriptedLedger([in_the_way, GrantedGpus((uuid(0),))])
    one = service(ledger, ScriptedProbe(scan_observation(used_gpu(0), free_gpu(1))))
    if how == "count":
        granted = one.reserve_count(CLAIM, 1, force=True)
    else:
        granted = one.reserve_given(CLAIM, named(0), force=True)
    assert isinstance(granted, Grant)
    assert granted.in_use == {uuid(0)}
    assert [asked.in_use for asked, _ in ledger.reserve_calls] == [{uuid(0)}, set()]
    assert ledger.released == []


def test_force_takes_no_gpu_that_cannot_be_read_and_none_that_is_reserved() -> None:
    for in_the_way in (BlockedGpu(uuid(0), "unknown"), BlockedGpu(uuid(0), "reserved")):
        ledger = ScriptedLedger([in_the_way])
        one = service(ledger, ScriptedProbe(scan_observation(used_gpu(0), free_gpu(1))))
        assert isinstance(one.reserve_given(CLAIM, named(0), force=True), Refusal)
        assert len(ledger.reserve_calls) == 1


def test_clean_gpus_need_no_force() -> None:
    ledger = ScriptedLedger([GrantedGpus((uuid(1),))])
    granted = service(
        ledger, ScriptedProbe(scan_observation(used_gpu(0), free_gpu(1)))
    ).reserve_count(CLAIM, 1, force=True)
    assert isinstance(granted, Grant)
    assert granted.in_use == frozenset()


@dataclass
class LedgerWithIntents(ScriptedLedger):
    """Withholds the GPUs before it answers; `scans_before` counts the scans at that time."""

    probe: ScriptedProbe = field(default_factory=lambda: ScriptedProbe(ALL_FREE))
    choices: int = 1
    scans_before: int = 0

    def reserve_count(
        self,
        claim: Claim,
        count: int,
        observation: Observation,
        options: GrantOptions = JOB_GRANT_OPTIONS,
    ) -> GrantedGpus | TooFewGpus | QueuePosition:
        self.scans_before = len(self.probe.scans)
        for _ in range(self.choices):
            options.on_intent()
        return super().reserve_count(claim, count, observation, options)


@pytest.mark.parametrize("choices", [1, 2])
def test_the_second_look_begins_with_the_last_intent(choices: int) -> None:
    in_use = scan_observation(used_gpu(0), free_gpu(1))
    probe = ScriptedProbe(*[ALL_FREE] * choices, in_use)
    ledger = LedgerWithIntents([GrantedGpus((uuid(0),)), FULL], probe=probe, choices=choices)
    refused = service(ledger, probe).reserve_count(CLAIM, 1)
    assert isinstance(refused, Refusal)
    assert ledger.released == [(OWNER.token, "in use at the second look")]
    assert [scan.observed for scan in probe.scans[: choices + 1]] == [1, *[0] * (choices - 1), 1]


def test_a_refused_intent_grants_nothing_by_its_scan() -> None:
    probe = ScriptedProbe(ALL_FREE)
    ledger = LedgerWithIntents([STALE, GrantedGpus((uuid(0),))], probe=probe)
    assert isinstance(service(ledger, probe).reserve_count(CLAIM, 1), Grant)
    # Of each attempt its own first scan, and of the second one its own second look.
    assert [scan.observed for scan in probe.scans] == [1, 0, 1, 1]
