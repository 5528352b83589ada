"""What the driver's accounting says of an owner's use of a GPU."""

from __future__ import annotations

import pytest

from canhazgpu.gpu.accounting import (
    AccountedGpu,
    AccountedProcess,
    GpuUse,
    plausible_process,
    use_while_held,
)

HELD = 1000.0
NOW = 1100.0


def process(
    pid: int, started_at: float, ran_s: float | None, busy: int, peak_mb: int | None = 1000
) -> AccountedProcess:
    return AccountedProcess(pid, started_at, ran_s, busy, peak_mb)


def use(*processes: AccountedProcess, since: float = 0.0, full: bool = False) -> GpuUse | None:
    return use_while_held(AccountedGpu("GPU-0", since, processes, full), HELD, NOW)


def test_a_gpu_without_a_process_was_never_used() -> None:
    assert use() == GpuUse(0, 0, never_used=True)
    assert use(process(1, HELD - 50, 40.0, 100)) == GpuUse(0, 0, never_used=True)


def test_the_share_of_the_held_time_in_which_kernels_ran() -> None:
    assert use(process(1, HELD + 10, 50.0, 80)) == GpuUse(40, 1000)
    assert use(process(1, HELD, None, 50)) == GpuUse(50, 1000)
    assert use(process(1, HELD, 50.0, 80), process(2, HELD + 50, 50.0, 20)) == GpuUse(50, 1000)


def test_processes_at_the_same_time_have_their_memory_together_and_no_more_than_all_time() -> None:
    both = use(process(1, HELD, 100.0, 80, 3000), process(2, HELD + 10, 50.0, 90, 4000))
    assert both == GpuUse(100, 7000)
    one_after_the_other = use(process(1, HELD, 50.0, 0, 3000), process(2, HELD + 50, 50.0, 0, 4000))
    assert one_after_the_other == GpuUse(0, 4000)


def test_what_others_did_is_not_the_owners() -> None:
    gpu = AccountedGpu("GPU-0", 0.0, (process(1, HELD, 100.0, 80), process(2, HELD, 100.0, 5, 7)))
    assert use_while_held(gpu, HELD, NOW, others={1}) == GpuUse(5, 7)


@pytest.mark.parametrize("since", [HELD + 1, float("inf")])
def test_accounting_that_was_switched_on_later_has_not_all(since: float) -> None:
    assert use(process(1, HELD + 10, 50.0, 80), since=since) is None


def test_a_full_buffer_may_have_lost_the_owners_processes() -> None:
    assert use(process(1, HELD + 10, 50.0, 80), full=True) is None
    kept = use(process(9, HELD - 500, 5.0, 80), process(1, HELD, 100.0, 80), full=True)
    assert kept == GpuUse(80, 1000)


def test_memory_that_the_driver_does_not_say_is_not_known() -> None:
    assert use(process(1, HELD, 100.0, 80, None)) == GpuUse(80, None)


def test_impossible_numbers_are_no_process() -> None:
    good = plausible_process(1, 10**15, 1000, 50, 7, runs=False)
    assert good == process(1, 1e9, 1.0, 50, 7)
    assert plausible_process(1, 2**64 - 1, 1000, 50, 7, runs=False) is None
    assert plausible_process(1, 10**15, 2**64 - 1, 50, 7, runs=False) is None
    assert plausible_process(1, 10**15, 1000, 101, 7, runs=False) is None
