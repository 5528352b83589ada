"""What a reading and the ledger together say of a GPU."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canhazgpu.gpu.scan import GpuProcess, GpuReading, Scan
from canhazgpu.gpu.usage import (
    MAX_PID,
    GpuState,
    Usage,
    UsagePolicy,
    gpu_state,
    judge_usage,
    memory_text,
    processes_text,
    users_text,
)
from canhazgpu.probe.node_probe import judge_scan

FREE, IN_USE, UNKNOWN = Usage.FREE, Usage.IN_USE, Usage.UNKNOWN
IDLE = GpuReading(0, "GPU-0", 0, "H100", 0, 80000)


def process(pid: int = 5, memory_mb: int | None = 1) -> GpuProcess:
    return GpuProcess(pid, 0, "root", "x", memory_mb)


@pytest.mark.parametrize(
    ("reading", "usage"),
    [
        (IDLE, FREE),
        (replace(IDLE, memory_used_mb=1023), FREE),
        (replace(IDLE, memory_used_mb=1024), FREE),
        (replace(IDLE, memory_used_mb=1025), IN_USE),
        (replace(IDLE, memory_used_mb=80000), IN_USE),
        (replace(IDLE, processes=(process(),)), FREE),
        (replace(IDLE, processes=(process(), process(6, None))), IN_USE),
        (replace(IDLE, processes=(process(MAX_PID),)), FREE),
        (replace(IDLE, memory_used_mb=None, memory_total_mb=None), FREE),
        (replace(IDLE, memory_used_mb=None, processes=(process(), process(6, 1023))), FREE),
        (replace(IDLE, memory_used_mb=None, processes=(process(), process(6, 1024))), IN_USE),
        (replace(IDLE, memory_used_mb=None, processes=(process(), process(6, None))), IN_USE),
        (replace(IDLE, memory_used_mb=45, processes=(process(5, 1000), process(6, 24))), FREE),
        (replace(IDLE, memory_used_mb=45, processes=(process(5, 1000), process(6, 25))), IN_USE),
        (replace(IDLE, fault="lost"), UNKNOWN),
        (replace(IDLE, fault=""), UNKNOWN),
        (replace(IDLE, fault="lost", memory_used_mb=5000), UNKNOWN),
        (replace(IDLE, uuid=""), UNKNOWN),
        (replace(IDLE, memory_used_mb=-1), UNKNOWN),
        (replace(IDLE, memory_used_mb=1, memory_total_mb=0), UNKNOWN),
        (replace(IDLE, memory_used_mb=80001), UNKNOWN),
        (replace(IDLE, memory_total_mb=-1), UNKNOWN),
        (replace(IDLE, processes=(process(0),)), UNKNOWN),
        (replace(IDLE, processes=(process(-1),)), UNKNOWN),
        (replace(IDLE, processes=(process(MAX_PID + 1),)), UNKNOWN),
        (replace(IDLE, processes=(process(5, -1),)), UNKNOWN),
    ],
)
def test_usage(reading: GpuReading, usage: Usage) -> None:
    assert judge_usage(reading, UsagePolicy(1024)) is usage


def test_a_threshold_of_zero_is_one() -> None:
    assert judge_usage(IDLE, UsagePolicy(0)) is FREE
    assert judge_usage(replace(IDLE, memory_used_mb=1), UsagePolicy(0)) is IN_USE


@given(
    st.none() | st.integers(-5, 90000),
    st.none() | st.integers(-5, 90000),
    st.lists(st.tuples(st.integers(-2, 9), st.none() | st.integers(-2, 900)), max_size=3),
    st.none() | st.text(max_size=2),
)
def test_free_is_only_what_is_seen_to_be(
    used: int | None, total: int | None, processes: list[tuple[int, int | None]], fault: str | None
) -> None:
    reading = GpuReading(
        0, "GPU-0", 0, "", used, total, tuple(process(*one) for one in processes), fault
    )
    if judge_usage(reading, UsagePolicy(1024)) is FREE:
        assert fault is None
        assert used is None or 0 <= used <= 1024
        assert all(pid > 0 and memory is not None and memory >= 0 for pid, memory in processes)
        assert sum(memory or 0 for _, memory in processes) <= 1024


@pytest.mark.parametrize(
    ("usage", "reserved", "quarantined"),
    list(itertools.product(Usage, (False, True), (False, True))),
)
def test_a_gpu_has_one_state(usage: Usage, reserved: bool, quarantined: bool) -> None:
    state = gpu_state(usage, reserved=reserved, quarantined=quarantined)
    if reserved:
        expected = GpuState.RESERVED
    elif quarantined:
        expected = GpuState.QUARANTINED
    else:
        expected = {
            FREE: GpuState.AVAILABLE,
            IN_USE: GpuState.UNRESERVED,
            UNKNOWN: GpuState.UNKNOWN,
        }[usage]
    assert state is expected


def test_two_gpus_of_one_uuid_are_never_free_by_the_last_ones_word() -> None:
    busy = replace(IDLE, memory_used_mb=5000)
    for gpus in ((busy, IDLE), (IDLE, busy)):
        assert judge_scan(Scan("n1", 0, 0, gpus), UsagePolicy(1024)).in_use == {"GPU-0"}


def named(pid: int, user: str | None, name: str | None) -> GpuProcess:
    return GpuProcess(pid, None, user, name, 1)


def test_users_and_processes_are_told() -> None:
    some = (named(1, "ann", "python3"), named(2, "bob", None), named(3, "ann", "x"))
    assert users_text(some) == "ann,bob"
    assert users_text(()) == "unknown"
    assert users_text((named(1, None, "x"), some[0])) == "unknown,ann"
    assert processes_text(some) == "PID 1 (python3), PID 2 (unknown process) and 1 more"
    assert processes_text(some, limit=None).endswith("PID 3 (x)")
    assert processes_text(some[:2]) == "PID 1 (python3), PID 2 (unknown process)"
    assert processes_text(()) == ""


@pytest.mark.parametrize(
    ("memory_mb", "text"),
    [
        (0, "0MB"), (45, "45MB"), (1024, "1024MB"), (2048, "2048MB"), (3072, "3072MB"),
        (4095, "4095MB"), (4096, "4GB"), (4097, "4097MB"), (8192, "8GB"), (8452, "8452MB"),
        (81920, "80GB"),
    ],
)  # fmt: skip
def test_amounts_of_memory(memory_mb: int, text: str) -> None:
    assert memory_text(memory_mb) == text


@pytest.mark.parametrize(
    ("names", "users", "process", "ignored"),
    [
        ({"Xorg"}, (), named(1, "bob", "Xorg"), True),
        ({"Xorg"}, (), named(1, None, "Xorg"), True),
        ({"Xorg"}, (), named(1, "bob", "Xorg2"), False),
        ({"Xorg"}, (), named(1, "bob", None), False),
        ({"root:Xorg"}, (), named(1, "root", "Xorg"), True),
        ({"root:Xorg"}, (), named(1, "bob", "Xorg"), False),
        # Names are chosen by whoever runs the process.
        ({"root:Xorg"}, (), named(1, "bob", "root:Xorg"), False),
        ({"None:Xorg"}, (), named(1, None, "Xorg"), False),
        ({"root:None"}, (), named(1, "root", None), False),
        (set(), {"monitor"}, named(1, "monitor", "x"), True),
        (set(), {"monitor"}, named(1, None, "monitor"), False),
        (set(), {"None"}, named(1, None, "x"), False),
    ],
)
def test_what_is_ignored(
    names: set[str], users: set[str], process: GpuProcess, ignored: bool
) -> None:
    policy = UsagePolicy(1024, frozenset(names), frozenset(users))

    assert policy.ignores(process) is ignored
    assert policy.counted_processes((process,)) == (() if ignored else (process,))


def test_what_is_ignored_does_not_count_nor_does_its_memory() -> None:
    policy = UsagePolicy(1024, frozenset({"Xorg"}))
    xorg, other = GpuProcess(7, 0, "root", "Xorg", 900), process(8, 1000)
    shown = replace(IDLE, memory_used_mb=1900)

    assert judge_usage(replace(shown, processes=(xorg,)), policy) is FREE
    assert judge_usage(replace(shown, processes=(xorg,)), UsagePolicy(1024)) is IN_USE
    assert (
        judge_usage(replace(shown, memory_used_mb=1925, processes=(xorg, other)), policy) is IN_USE
    )
    unknown = replace(xorg, memory_mb=None)
    assert judge_usage(replace(IDLE, processes=(unknown,)), policy) is FREE
    assert judge_usage(replace(IDLE, memory_used_mb=None, processes=(xorg,)), policy) is FREE
