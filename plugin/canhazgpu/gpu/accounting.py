"""What an owner made of a GPU, by what the driver has kept of the processes on it; pure."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from canhazgpu.frozen_dataclass import dataclass

START_TOLERANCE_S = 1.0
"""The driver and the node round the times of starts differently."""


@dataclass(frozen=True, slots=True)
class AccountedProcess:
    """A process as the driver has kept it, perhaps after its end; times in seconds.

    `started_at` is seconds since the epoch, `ran_s` None while it runs. `busy_percent` is for how
    much of its life its kernels ran on the GPU, `peak_mb` the most memory that it had, None where
    the driver does not say.
    """

    pid: int
    started_at: float
    ran_s: float | None
    busy_percent: int
    peak_mb: int | None

    def ends_at(self, now: float) -> float:
        """Return its end, now for one that runs."""
        return now if self.ran_s is None else self.started_at + self.ran_s


@dataclass(frozen=True, slots=True)
class AccountedGpu:
    """A GPU's processes that the driver has kept.

    It has kept those that started at `since` or later (seconds since the epoch, 0 for ever):
    before, accounting was off. Of a full buffer the oldest are lost (`is_full`).
    """

    uuid: str
    since: float
    processes: tuple[AccountedProcess, ...]
    is_full: bool = False


@dataclass(frozen=True, slots=True)
class GpuUse:
    """The use of a GPU while an owner held it alone.

    `busy_percent` is for how much of that time kernels ran, `peak_mb` the most memory that was in
    use; None where it is not known. A GPU without any process was `never_used`.
    """

    busy_percent: int
    peak_mb: int | None
    never_used: bool = False

    def amounts(self, total_mb: int | None) -> list[int | None]:
        """Return what a note tells of it: highest memory, memory of the GPU, percent."""
        if self.never_used:
            return [None, total_mb, None]
        return [self.peak_mb, total_mb, self.busy_percent]


def use_while_held(
    gpu: AccountedGpu, held_since: float, now: float, others: Collection[int] = ()
) -> GpuUse | None:
    """Return the use from `held_since` to now; None where the driver has not kept all of it.

    Every process that started meanwhile is the owner's, but for `others` (pids): nobody else had
    the GPU. Which job a process was in, nothing tells after its end.
    """
    began = held_since - START_TOLERANCE_S
    if gpu.since > held_since:
        return None
    if gpu.is_full and min((one.started_at for one in gpu.processes), default=now) > began:
        return None
    own = [one for one in gpu.processes if one.started_at >= began and one.pid not in others]
    if not own:
        return GpuUse(0, 0, never_used=True)
    busy_s = sum(one.busy_percent / 100 * _life_s(one, now) for one in own)
    held_s = max(now - held_since, *(_life_s(one, now) for one in own), 0.001)
    return GpuUse(min(round(100 * busy_s / held_s), 100), _peak_mb(own, now))


def _life_s(one: AccountedProcess, now: float) -> float:
    return max(one.ends_at(now) - one.started_at, 0.0)


def _peak_mb(processes: Sequence[AccountedProcess], now: float) -> int | None:
    """Return the most memory of processes that lived at the same time, if each had its most."""
    changes: list[tuple[float, int]] = []
    for one in processes:
        if one.peak_mb is None:
            return None
        changes += [(one.started_at, one.peak_mb), (one.ends_at(now), -one.peak_mb)]
    # At the same time an end comes before a start.
    highest = present = 0
    for _, change in sorted(changes):
        present += change
        highest = max(highest, present)
    return max(highest, *(one.peak_mb or 0 for one in processes))


def plausible_process(
    pid: int, start_us: int, time_ms: int, busy_percent: int, peak_mb: int | None, *, runs: bool
) -> AccountedProcess | None:
    """Return the process; None for numbers that cannot be."""
    started_at, ran_s = start_us / 1e6, time_ms / 1e3
    if busy_percent > 100 or not math.isfinite(started_at) or started_at > 1e11 or ran_s > 1e9:
        return None
    return AccountedProcess(pid, started_at, None if runs else ran_s, busy_percent, peak_mb)
