"""Which GPUs health holds back, why, and what clears it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from canhazgpu.config.schema import HEALTH_CHECKS
from canhazgpu.gpu.health import (
    CHECK_FUNCTIONS,
    count_text,
    count_whole_gpus,
    find_lost_gpus,
    missing_gpus_text,
    unhealthy_gpus,
    with_known_uuids,
)
from canhazgpu.gpu.scan import GpuHealth, GpuReading, Scan, whole_gpus
from canhazgpu.gpu.usage import UsagePolicy
from canhazgpu.probe.node_probe import judge_scan

HEALTHY = GpuHealth("none", False, False, False, 0, "default")
RESET = "nvidia-smi --gpu-reset -i 3"


def gpu(health: GpuHealth | None, index: int = 3, **more: object) -> GpuReading:
    uuid = str(more.pop("uuid", f"GPU-{index}"))
    return GpuReading(index, uuid, index, "H100", 0, 1, health=health, **more)  # type: ignore[arg-type]


def scan(*gpus: GpuReading, fault: str | None = None) -> Scan:
    return Scan("n1", 0.0, 0.0, gpus, fault)


FAULTS = [
    ("recovery_action", {"recovery_action": "reset"}, f"needs a reset: {RESET}"),
    ("recovery_action", {"recovery_action": "reboot"}, "needs a reboot of the node"),
    (
        "recovery_action",
        {"recovery_action": "drain"},
        "needs its peer-to-peer work ended, then a look at: nvidia-smi -q -i 3",
    ),
    (
        "recovery_action",
        {"recovery_action": "drain and reset"},
        f"needs its work ended and a reset: {RESET}",
    ),
    ("recovery_action", {"recovery_action": "pray"}, "asks for 'pray': see nvidia-smi -q -i 3"),
    ("remap", {"remap_pending": True}, f"row remap pending, reset the GPU: {RESET}"),
    ("remap", {"remap_failed": True}, "row remap failed, have the GPU replaced"),
    (
        "retirement",
        {"retirement_pending": True},
        f"page retirement pending, reset the GPU: {RESET}",
    ),
    ("ecc", {"ecc_uncorrected": 1}, f"1 uncorrected memory error, reset the GPU: {RESET}"),
    ("ecc", {"ecc_uncorrected": 7}, f"7 uncorrected memory errors, reset the GPU: {RESET}"),
    *(
        (
            "compute_mode",
            {"compute_mode": mode},
            f"compute mode is {mode}, set the default: nvidia-smi -c 0 -i 3",
        )
        for mode in ("prohibited", "exclusive process", "exclusive thread")
    ),
]


@pytest.mark.parametrize(("check", "fields", "reason"), FAULTS)
def test_each_fault_has_its_reason_and_its_check(
    check: str, fields: dict[str, object], reason: str
) -> None:
    sick = gpu(replace(HEALTHY, **fields))  # type: ignore[arg-type]
    others = [one for one in HEALTH_CHECKS if one != check]

    assert unhealthy_gpus([sick], HEALTH_CHECKS) == {"GPU-3": reason}
    assert unhealthy_gpus([sick], [check]) == {"GPU-3": reason}
    assert unhealthy_gpus([sick], others) == {}


def test_every_check_of_the_configuration_is_there() -> None:
    assert tuple(CHECK_FUNCTIONS) == HEALTH_CHECKS


@pytest.mark.parametrize(
    "health", [None, GpuHealth(), HEALTHY, GpuHealth(ecc_uncorrected=-1), GpuHealth("", None)]
)
def test_healthy_or_not_told_is_not_held_back(health: GpuHealth | None) -> None:
    assert unhealthy_gpus([gpu(health)], HEALTH_CHECKS) == {}


def test_all_faults_are_named() -> None:
    sick = gpu(GpuHealth("reset", remap_pending=True, remap_failed=True))

    assert unhealthy_gpus([sick], HEALTH_CHECKS)["GPU-3"].split("; ") == [
        f"needs a reset: {RESET}",
        f"row remap pending, reset the GPU: {RESET}",
        "row remap failed, have the GPU replaced",
    ]


def test_only_the_sick_gpu_is_held_back() -> None:
    assert list(unhealthy_gpus([gpu(HEALTHY, 0), gpu(GpuHealth("reset"), 1)], HEALTH_CHECKS)) == [
        "GPU-1"
    ]


def test_a_gpu_that_cannot_be_read_or_named_is_unknown() -> None:
    sick = GpuHealth("reset")

    assert unhealthy_gpus([gpu(sick, fault="lost"), gpu(sick, uuid="")], HEALTH_CHECKS) == {}


@pytest.mark.parametrize("teller", ["parent", "sibling", "itself"])
def test_mig_instances_share_their_gpus_health(teller: str) -> None:
    sick = GpuHealth("reset")
    instances = [
        gpu(sick if teller == "itself" else None, uuid="MIG-a", mig_index=0, parent_uuid="GPU-3"),
        gpu(sick if teller == "sibling" else None, uuid="MIG-b", mig_index=1, parent_uuid="GPU-3"),
    ]
    parent = [gpu(sick)] if teller == "parent" else []

    found = unhealthy_gpus([*instances, *parent, gpu(HEALTHY, 0)], HEALTH_CHECKS)

    assert found.keys() >= {"MIG-a", "MIG-b"}
    assert "GPU-0" not in found


def test_an_observation_says_what_is_unhealthy() -> None:
    found = scan(gpu(GpuHealth("reset")), gpu(HEALTHY, 1))

    assert judge_scan(found, UsagePolicy(1024)).unhealthy == {"GPU-3": f"needs a reset: {RESET}"}
    assert judge_scan(found, UsagePolicy(1024), health_checks=("ecc",)).unhealthy == {}


@pytest.mark.parametrize(
    ("expected", "seen", "text"),
    [(8, 7, "7 of 8 GPUs are there"), (8, 0, "0 of 8 GPUs are there"), (8, 8, ""), (8, 9, "")],
)
def test_fewer_gpus_than_expected(expected: int, seen: int, text: str) -> None:
    assert missing_gpus_text(expected, seen) == text


@pytest.mark.parametrize("seen", [0, 3])
def test_without_a_number_nothing_is_missing(seen: int) -> None:
    assert missing_gpus_text(0, seen) == ""


def test_a_gpu_that_was_there_and_is_gone_is_missing() -> None:
    before = whole_gpus(scan(gpu(None, 0), gpu(None, 1), gpu(None, 2)))

    assert before == {"GPU-0": 0, "GPU-1": 1, "GPU-2": 2}
    assert find_lost_gpus(before, scan(gpu(None, 0), gpu(None, 1, uuid="GPU-2"))) == {"GPU-1": 1}


def test_nothing_is_missing_where_that_cannot_be_told() -> None:
    before = {"GPU-0": 0}

    assert find_lost_gpus({}, scan()) == {}
    assert find_lost_gpus(before, scan(fault="no driver")) == {}
    assert find_lost_gpus(before, scan(gpu(None, 0, uuid="", fault="lost"))) == {}


def test_mig_instances_stand_for_their_gpu() -> None:
    some = gpu(None, 0, uuid="MIG-a", mig_index=0, parent_uuid="GPU-0")
    other = gpu(None, 0, uuid="MIG-b", mig_index=1, parent_uuid="GPU-0")

    assert whole_gpus(scan(some, other)) == {"GPU-0": 0}
    assert find_lost_gpus({"GPU-0": 0}, scan(some)) == {}
    assert find_lost_gpus({"GPU-0": 0}, scan(gpu(None, 1))) == {"GPU-0": 0}


def test_a_gpu_that_fell_off_the_bus_is_known_by_its_index() -> None:
    known = {"GPU-0": 0, "GPU-1": 1, "GPU-2": 2}
    lost = gpu(None, 1, uuid="", fault="GPU is lost")

    def uuids(*found: GpuReading) -> list[str]:
        return [one.uuid for one in with_known_uuids(known, scan(*found)).gpus]

    (_, named, _) = with_known_uuids(known, scan(gpu(None, 0), lost, gpu(None, 2))).gpus
    assert (named.uuid, named.fault) == ("GPU-1", "GPU is lost")
    # At another index it is there: which GPU is at its old index is not known then.
    assert uuids(lost, gpu(None, 2, uuid="GPU-1")) == ["", "GPU-1"]
    # A GPU without a fault is never given a name that it does not tell.
    assert uuids(replace(lost, fault=None)) == [""]
    assert uuids(replace(lost, index=7)) == [""]


def counted(whole: int, instances: int) -> list[GpuReading]:
    gpus = [GpuReading(index, f"GPU-{index}", index, "H100", 0, 80000) for index in range(whole)]
    return gpus + [
        GpuReading(9, f"MIG-{place}", None, "H100 MIG 1g.10gb", 0, 9000, mig_index=place)
        for place in range(instances)
    ]


@pytest.mark.parametrize(
    ("whole", "instances", "text", "number"),
    [
        (0, 0, "0 GPUs", 0),
        (1, 0, "1 GPUs", 1),
        (3, 0, "3 GPUs", 3),
        (1, 1, "1 GPU and 1 MIG instance", 2),
        (2, 7, "2 GPUs and 7 MIG instances", 3),
        (0, 7, "7 MIG instances", 1),
    ],
)
def test_instances_are_named_and_count_as_the_gpu_that_they_divide(
    whole: int, instances: int, text: str, number: int
) -> None:
    gpus = counted(whole, instances)
    assert (count_text(gpus), count_whole_gpus(gpus)) == (text, number)
