"""A scan survives its JSON form, and nothing else passes for one."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canhazgpu.errors import ScanError
from canhazgpu.gpu.scan import GpuHealth, GpuProcess, GpuReading, MigDeviceNumbers, Scan
from canhazgpu.gpu.scan_json import scan_from_json, scan_to_json, scan_to_published_json
from canhazgpu.gpu.scan_supplement import supplement_to_json, with_supplement

PROCESSES = st.builds(
    GpuProcess,
    pid=st.integers(),
    uid=st.none() | st.integers(),
    user=st.none() | st.text(),
    name=st.none() | st.text(),
    memory_mb=st.none() | st.integers(),
    model=st.none() | st.text(),
    job=st.none() | st.text(),
    ancestors=st.lists(st.integers(), max_size=2).map(tuple),
)
TOLD = st.none() | st.booleans()
HEALTHS = st.builds(
    GpuHealth,
    recovery_action=st.none() | st.text(),
    remap_pending=TOLD,
    remap_failed=TOLD,
    retirement_pending=TOLD,
    ecc_uncorrected=st.none() | st.integers(),
    compute_mode=st.none() | st.text(),
)
NUMBERS = st.none() | st.integers()
READINGS = st.builds(
    GpuReading,
    index=st.integers(),
    uuid=st.text(),
    device_number=st.none() | st.integers(),
    name=st.text(),
    memory_used_mb=st.none() | st.integers(),
    memory_total_mb=st.none() | st.integers(),
    processes=st.lists(PROCESSES, max_size=2).map(tuple),
    fault=st.none() | st.text(),
    health=st.none() | HEALTHS,
    mig_index=st.none() | st.integers(),
    parent_uuid=st.none() | st.text(),
    utilization_percent=NUMBERS,
    mig_devices=st.none()
    | st.builds(MigDeviceNumbers, gpu=NUMBERS, gpu_instance=NUMBERS, compute_instance=NUMBERS),
)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
SCANS = st.builds(
    Scan,
    node=st.text(),
    started_at=FINITE,
    took_s=FINITE,
    gpus=st.lists(READINGS, max_size=2).map(tuple),
    fault=st.none() | st.text(),
    source=st.text(),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@given(SCANS)
def test_a_scan_comes_back_as_it_was(scan: Scan) -> None:
    assert scan_from_json(scan_to_json(scan)) == scan
    assert scan_from_json(scan_to_json(scan).encode()) == scan


@given(st.binary(max_size=40) | st.text(max_size=40) | JSON.map(json.dumps))
def test_garbage_is_refused(text: str | bytes) -> None:
    with pytest.raises(ScanError, match="malformed"):
        scan_from_json(text)


def whole() -> dict[str, Any]:
    """A scan's JSON, with every field."""
    process = GpuProcess(1, 0, "root", "init", 5)
    reading = GpuReading(0, "GPU-0", 0, "H100", 1, 2, (process,), health=GpuHealth())
    scan: dict[str, Any] = json.loads(scan_to_json(Scan("n1", 1.0, 0.5, (reading,))))
    return scan


PLACES: list[tuple[str, ...]] = [
    *[(field,) for field in whole()],
    *[("gpus", field) for field in whole()["gpus"][0]],
    *[("gpus", "processes", field) for field in whole()["gpus"][0]["processes"][0]],
    *[("gpus", "health", field) for field in whole()["gpus"][0]["health"]],
]
NOT_IN_EARLIER_RELEASES = {"source", "model", "job", "ancestors", "health"} | {
    "mig_index",
    "parent_uuid",
}
LISTS = {"gpus", "processes", "ancestors"}


def at(scan: dict[str, Any], place: tuple[str, ...]) -> dict[str, Any]:
    for step in place[:-1]:
        scan = scan[step] if step == "health" else scan[step][0]
    return scan


def is_fitting(value: Any, field: str) -> bool:
    if field in LISTS and value == []:
        return True
    if field in ("gpus", "processes", "health") and value == {}:
        return True
    return value is True and field in ("remap_pending", "remap_failed", "retirement_pending")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("value", [True, [], {}, {"a": 1}, [[]], float("nan"), float("inf")])
def test_a_field_of_another_type_is_refused(place: tuple[str, ...], value: Any) -> None:
    scan = whole()
    if is_fitting(value, place[-1]):
        return
    at(scan, place)[place[-1]] = value
    with pytest.raises(ScanError, match="malformed"):
        scan_from_json(json.dumps(scan))


@pytest.mark.parametrize("place", PLACES)
def test_a_missing_field_and_a_foreign_one_are_refused(place: tuple[str, ...]) -> None:
    scan = whole()
    at(scan, place)["foreign"] = 1
    with pytest.raises(ScanError):
        scan_from_json(json.dumps(scan))
    scan = whole()
    del at(scan, place)[place[-1]]
    if place[-1] == "fault" or "health" in place or place[-1] in NOT_IN_EARLIER_RELEASES:
        assert scan_from_json(json.dumps(scan)).node == "n1"
        return
    with pytest.raises(ScanError):
        scan_from_json(json.dumps(scan))


@pytest.mark.parametrize("text", ["[" * 100_000, '{"gpus":' * 50_000, "1" * 5000])
def test_what_is_too_deep_or_too_long_is_refused(text: str) -> None:
    with pytest.raises(ScanError):
        scan_from_json(text)


def test_only_identified_gpus_have_a_uuid() -> None:
    known, unknown = (GpuReading(i, u, None, "", 0, 0) for i, u in enumerate(("GPU-a", "")))
    assert Scan("n1", 0, 0, (known, unknown)).by_uuid() == {"GPU-a": known}


def test_releases_before_instances_had_device_numbers_read_what_is_published() -> None:
    instance = GpuReading(
        0, "MIG-1", None, "H100 MIG 1g.10gb", 12, 9856, mig_index=1, parent_uuid="GPU-1",
        mig_devices=MigDeviceNumbers(0, 12, 13),
    )  # fmt: skip
    published = scan_to_published_json(Scan("n1", 1.0, 0.5, (instance,)))
    assert "mig_devices" not in published
    (read,) = scan_from_json(published).gpus
    assert (read.uuid, read.mig_index, read.mig_devices) == ("MIG-1", 1, None)


def test_releases_before_utilization_read_what_is_published() -> None:
    scan = Scan("n1", 1.0, 0.5, (GpuReading(0, "GPU-1", 0, "", 1, 2, utilization_percent=87),))
    published = scan_to_published_json(scan)
    assert "utilization" not in published
    assert with_supplement(scan_from_json(published), supplement_to_json(scan)) == scan


@given(SCANS, SCANS)
def test_the_supplement_of_another_scan_changes_nothing(scan: Scan, other: Scan) -> None:
    published = scan_from_json(scan_to_published_json(scan))
    supplemented = with_supplement(published, supplement_to_json(other))
    if scan.started_at != other.started_at:
        assert supplemented == published


@given(st.text() | JSON.map(json.dumps) | st.none())
def test_a_supplement_that_is_garbage_changes_nothing(text: str | None) -> None:
    scan = Scan("n1", 1.0, 0.5, (GpuReading(0, "GPU-1", 0, "", 1, 2),))
    assert with_supplement(scan, text) == scan


@pytest.mark.parametrize("value", [-1, 101, True, 5.5, "5", None, [5]])
def test_a_utilization_that_is_no_percentage_is_unknown(value: object) -> None:
    scan = Scan("n1", 1.0, 0.5, (GpuReading(0, "GPU-1", 0, "", 1, 2),))
    text = json.dumps({"started_at": 1.0, "utilization_percent": {"GPU-1": value}})
    assert with_supplement(scan, text) == scan


@pytest.mark.parametrize(
    ("name", "profile"),
    [
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "1g.5gb"),
        ("NVIDIA H100 80GB HBM3 MIG 1c.3g.40gb", "1c.3g.40gb"),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb+me", "1g.10gb+me"),
        ("NVIDIA H100 80GB HBM3", ""),
        ("MIG", ""),
        ("OMIG 1g.5gb", ""),
        ("", ""),
    ],
)
def test_an_instances_profile_is_the_end_of_its_name(name: str, profile: str) -> None:
    whole = GpuReading(0, "GPU-1", 0, name, 12, 9856)
    assert replace(whole, mig_index=0).mig_profile == profile
    assert whole.mig_profile == ""
