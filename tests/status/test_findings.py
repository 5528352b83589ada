"""What is wrong with a node's GPUs, and which of several findings is the worst."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import pytest
from fakes.memory_ledger import BOB, gpu, job, manual, scan, uuid, view
from fakes.read_only_ledger import NOW

from canhazgpu.allocation.intruders import OtherProcesses
from canhazgpu.config.schema import HEALTH_CHECKS
from canhazgpu.gpu.health import unhealthy_gpus
from canhazgpu.gpu.scan import GpuHealth, GpuProcess, Scan, whole_gpus
from canhazgpu.gpu.usage import GpuState, Usage, UsagePolicy
from canhazgpu.ledger.values import NodeView, Quarantine
from canhazgpu.status.findings import (
    Expectations,
    Finding,
    Verdict,
    ledger_findings,
    scan_findings,
    worst_verdict,
)
from canhazgpu.status.node_status import GpuStatus, NodeStatus, node_status, with_live_scan

POLICY = UsagePolicy(1024)
ROGUE = GpuProcess(12345, 1002, "bob", "python3", 5000)


def expected(**more: object) -> Expectations:
    return Expectations(POLICY, HEALTH_CHECKS, **more)  # type: ignore[arg-type]


def of_scan(found: Scan, **more: object) -> list[tuple[Verdict, str]]:
    return [(one.verdict, one.headline) for one in scan_findings(found, expected(**more))]


def of_ledger(of: NodeView, found: Scan, scanned_at: float = NOW) -> list[Finding]:
    status = node_status(with_live_scan(of, found, scanned_at), POLICY, live=True)
    return ledger_findings(status, POLICY, set(unhealthy_gpus(found.gpus, HEALTH_CHECKS)))


@pytest.mark.parametrize(
    ("verdicts", "result"),
    [
        ([], Verdict.CLEAN),
        ([Verdict.CLEAN], Verdict.CLEAN),
        ([Verdict.CLEAN, Verdict.UNRESERVED], Verdict.UNRESERVED),
        ([Verdict.UNRESERVED, Verdict.CANNOT_TELL], Verdict.CANNOT_TELL),
        ([Verdict.CANNOT_TELL, Verdict.UNHEALTHY], Verdict.UNHEALTHY),
        (list(Verdict), Verdict.UNHEALTHY),
    ],
)
def test_the_worst_wins(verdicts: list[Verdict], result: Verdict) -> None:
    for order in permutations(verdicts):
        assert worst_verdict(Finding(one, "x") for one in order) is result


def test_a_clean_node_has_no_findings() -> None:
    seen = scan(gpu(0), gpu(1, 5045, ROGUE))

    assert of_scan(seen, gpus=2, known_gpus={uuid(0): 0, uuid(1): 1}) == []
    assert of_ledger(view(manual(1, BOB)), seen) == []


def test_a_lost_gpu_beside_healthy_ones() -> None:
    lost = replace(gpu(1), memory_used_mb=None, fault="GPU is lost (NVML error 15)")

    assert of_scan(scan(gpu(0), lost)) == [
        (
            Verdict.UNHEALTHY,
            f"GPU 1 ({uuid(1)}): cannot be read: GPU is lost (NVML error 15)",
        )
    ]


def test_a_gpu_that_cannot_be_identified() -> None:
    nameless = replace(gpu(1), uuid="", fault="GPU is lost (NVML error 15)")

    assert of_scan(scan(nameless), known_gpus={uuid(1): 1}) == [
        (Verdict.UNHEALTHY, "GPU 1 (no UUID): cannot be read: GPU is lost (NVML error 15)")
    ]


def test_a_sick_gpu() -> None:
    assert of_scan(scan(gpu(0), gpu(1, health=GpuHealth(remap_failed=True)))) == [
        (
            Verdict.UNHEALTHY,
            f"GPU 1 ({uuid(1)}): unhealthy: row remap failed, have the GPU replaced",
        )
    ]


def test_amounts_that_cannot_be() -> None:
    (found,) = of_scan(scan(gpu(0, 90000)))

    assert found[0] is Verdict.CANNOT_TELL


@pytest.mark.parametrize("gpus", [0, 8])
def test_a_driver_that_fails(gpus: int) -> None:
    assert of_scan(scan(fault="no driver"), gpus=gpus, known_gpus={uuid(0): 0}) == [
        (Verdict.CANNOT_TELL, "no driver")
    ]


def test_fewer_gpus_than_expected() -> None:
    assert of_scan(scan(gpu(0)), gpus=8) == [(Verdict.UNHEALTHY, "1 of 8 GPUs are there")]
    assert of_scan(scan(), gpus=8) == [(Verdict.UNHEALTHY, "0 of 8 GPUs are there")]
    assert of_scan(scan(gpu(0), gpu(1)), gpus=1) == []


def test_mig_instances_count_as_the_gpu_that_they_divide() -> None:
    parts = [
        replace(gpu(0), uuid=f"MIG-{place}", mig_index=place, parent_uuid=uuid(0))
        for place in range(7)
    ]

    assert of_scan(scan(*parts), gpus=2) == [(Verdict.UNHEALTHY, "1 of 2 GPUs are there")]
    assert of_scan(scan(*parts), gpus=1) == []


def test_without_any_gpu_one_cannot_tell_unless_none_is_expected() -> None:
    for found in (scan(), scan(fault="no library")):
        assert [one[0] for one in of_scan(found)] == [Verdict.CANNOT_TELL]
        assert of_scan(found, may_lack_gpus=True) == []
        assert of_scan(found, may_lack_gpus=True, known_gpus={}) == []


def test_a_node_that_had_gpus_has_lost_them_whatever_one_expects() -> None:
    before = scan(gpu(0))

    lost = scan_findings(scan(), expected(may_lack_gpus=True, known_gpus=whole_gpus(before)))
    untold = scan_findings(
        scan(fault="x"), expected(may_lack_gpus=True, known_gpus=whole_gpus(before))
    )

    assert worst_verdict(lost) is Verdict.UNHEALTHY
    assert worst_verdict(untold) is Verdict.CANNOT_TELL


def test_a_gpu_of_the_last_published_scan_that_is_gone() -> None:
    node, found = scan_findings(scan(gpu(0)), expected(known_gpus={uuid(0): 0, uuid(1): 1}))

    assert (node.verdict, node.what) == (Verdict.UNHEALTHY, "1 of 2 GPUs are there")
    assert (found.verdict, found.display_index, found.uuid) == (Verdict.UNHEALTHY, "1", uuid(1))
    assert found.what == "was there before, and is gone"
    # Whoever names a number decides.
    assert of_scan(scan(gpu(0)), gpus=1, known_gpus={uuid(0): 0, uuid(1): 1}) == []


def test_unreserved_use_names_who_and_what_to_do() -> None:
    (found,) = of_ledger(view(), scan(gpu(2, 5045, ROGUE)))

    assert (found.verdict, found.user) == (Verdict.UNRESERVED, "bob")
    assert found.text == (
        f"GPU 2 ({uuid(2)}): in use by bob WITHOUT RESERVATION: 5045MB used by PID 12345 (python3)"
        " -> bob ends it, or takes the GPU: canhazgpu reserve --force --gpu-ids 2"
    )


SEVERAL = [
    (("u1", "u2"), "each user ends their own processes, or one of them takes the GPU: canhazgpu"
     " reserve --force --gpu-ids 2"),
    (("u1", "u1"), "u1 ends it, or takes the GPU: canhazgpu reserve --force --gpu-ids 2"),
    ((None,), "see whose process it is, as root: 'ps -o user,pid,args -p 1'"),
    ((None, "u1"), "see whose process it is, as root: 'ps -o user,pid,args -p 1'; u1 ends it, or"
     " takes the GPU: canhazgpu reserve --force --gpu-ids 2"),
    ((None,) * 20, "see whose process it is, as root: 'ps -o user,pid,args -p 1,2,3,4,5,6,7,8'"),
]  # fmt: skip


@pytest.mark.parametrize(("users", "advice"), SEVERAL)
def test_an_advice_names_one_user_or_none(users: tuple[str | None, ...], advice: str) -> None:
    several = [GpuProcess(pid, None, user, "x", 1100) for pid, user in enumerate(users, 1)]

    (found,) = of_ledger(view(), scan(gpu(2, 9045, *several)))

    assert found.advice == advice


def test_on_a_reserved_gpu_nobody_is_advised_to_take_it() -> None:
    others = [GpuProcess(pid, pid, f"u{pid}", "x", 1100) for pid in (1, 2)]

    (found,) = of_ledger(view(manual(0)), scan(gpu(0, 9045, *others)))

    assert found.advice == "each user ends their own processes"


def test_processes_that_do_not_count_are_not_blamed() -> None:
    policy = UsagePolicy(1024, frozenset({"Xorg"}))
    screen = GpuProcess(7, 0, "root", "Xorg", 100)
    status = node_status(
        with_live_scan(view(), scan(gpu(2, 5145, screen, ROGUE)), NOW), policy, live=True
    )

    (found,) = ledger_findings(status, policy, set())

    assert found.user == "bob"
    assert "Xorg" not in found.what


def test_use_by_nobody_that_is_shown() -> None:
    (found,) = of_ledger(view(), scan(gpu(2, 5045)))

    assert (found.verdict, found.user) == (Verdict.UNRESERVED, "unknown")
    assert "5045MB used by no process shown -> look for it as root" in found.text


def test_use_of_a_quarantined_gpu_is_unreserved_too() -> None:
    held = view(quarantines={uuid(2): Quarantine(uuid(2), "fan", NOW, "root")})

    found = of_ledger(held, scan(gpu(2, 5045, ROGUE)))

    assert [one.verdict for one in found] == [Verdict.CLEAN, Verdict.UNRESERVED]


@pytest.mark.parametrize(
    "more", [{"reservations": {uuid(0): manual(0)}}, {"released_at": {uuid(0): NOW}}]
)
def test_what_changed_hands_during_the_scan_is_no_unreserved_use(more: dict[str, object]) -> None:
    # Given a scan that began before the GPU was granted or released
    changed = replace(view(), **more)  # type: ignore[arg-type]

    assert of_ledger(changed, scan(gpu(0, 5045, ROGUE)), scanned_at=NOW - 3600) == []


def test_a_process_that_no_reservation_covers_is_unreserved_use() -> None:
    held = manual(0)
    reading = gpu(0, 5045, ROGUE)
    others = OtherProcesses(intruders=(ROGUE,))
    intruded = GpuStatus(0, uuid(0), GpuState.RESERVED, Usage.IN_USE, reading, held, others=others)

    (found,) = ledger_findings(NodeStatus("n1", NOW, NOW, True, None, (intruded,)), POLICY, set())

    assert (found.verdict, found.user) == (Verdict.UNRESERVED, "bob")
    assert found.what == (
        "in use by bob WITHOUT RESERVATION: reserved by alice, used by PID 12345 (python3)"
    )


def test_a_process_in_an_unidentified_job_is_neither_blamed_nor_passed_over() -> None:
    unknown = replace(ROGUE, job="slurm:?s5K1KKYAYG5D00")
    (found,) = of_ledger(view(job(0)), scan(gpu(0, 5045, unknown)))
    assert (found.verdict, found.user) == (Verdict.CANNOT_TELL, "bob")
    assert "in an unidentified slurm job s5K1KKYAYG5D00" in found.headline
    assert (
        of_ledger(view(job(0)), scan(gpu(0, 5045, replace(unknown, user="alice", uid=1001)))) == []
    )


def test_a_quarantine_by_hand_is_told_and_fails_nothing() -> None:
    held = view(quarantines={uuid(0): Quarantine(uuid(0), "fan", NOW, "root")})

    (found,) = of_ledger(held, scan(gpu(0)))

    assert found.verdict is Verdict.CLEAN
    assert found.text == (
        f"GPU 0 ({uuid(0)}): quarantined by root: fan"
        " -> when it is well: canhazgpu admin unquarantine 0"
    )


def test_a_quarantine_by_health_counts_until_a_scan_lifts_it() -> None:
    held = view(quarantines={uuid(0): Quarantine(uuid(0), "row remap pending", NOW)})

    (found,) = of_ledger(held, scan(gpu(0)))

    assert found.verdict is Verdict.UNHEALTHY
    assert found.what == "quarantined by health: row remap pending"
    assert "validate --publish" in found.advice


def test_a_sick_gpu_is_told_once() -> None:
    held = view(quarantines={uuid(0): Quarantine(uuid(0), "row remap pending", NOW)})

    assert of_ledger(held, scan(gpu(0, health=GpuHealth(remap_pending=True)))) == []


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"reservations": {uuid(5): job(5)}}, "is reserved by alice, but not found by the scan"),
        (
            {"quarantines": {uuid(5): Quarantine(uuid(5), "x", NOW)}},
            "is quarantined, but not found by the scan",
        ),
    ],
)
def test_a_gpu_that_only_the_ledger_knows_is_lost(more: dict[str, object], words: str) -> None:
    (found,) = of_ledger(replace(view(), **more), scan(gpu(0)))  # type: ignore[arg-type]

    assert (found.verdict, found.what, found.uuid) == (Verdict.UNHEALTHY, words, uuid(5))


def test_a_driver_that_fails_makes_no_gpu_lost_or_in_use() -> None:
    assert of_ledger(view(manual(0)), scan(fault="no driver")) == []
