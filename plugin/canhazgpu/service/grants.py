"""GPUs for people: for a time (reserve), and for as long as a command runs (run)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from canhazgpu.frozen_dataclass import dataclass

if TYPE_CHECKING:
    from canhazgpu.gpu.ids import GpuSelector
    from canhazgpu.gpu.scan import GpuReading

DEFAULT_RESERVE_S = 8 * 3600.0
"""How long a reservation lasts, in seconds, where neither the caller nor the site says."""


@dataclass(frozen=True, slots=True)
class GpuRequest:
    """The GPUs that somebody requests: `count` of them, or, with `selectors`, exactly these.

    A count is of whole GPUs, or with a `profile`, ``1g.10gb``, of MIG instances.
    `wait_s` is how long to wait in the queue, in seconds: 0 for not at all, infinite without a
    limit, None for as long as only reservations are in the way.
    `affinity` prefers the GPUs that the caller had last; None takes the site's `run.choice`. With
    `force` GPUs in unreserved use are granted too. `memory_threshold_mb` replaces the configured
    threshold, None keeps it. With `outside_job` a caller inside a scheduler's job is granted GPUs
    beside those of the job.
    """

    count: int
    selectors: tuple[GpuSelector, ...] = ()
    wait_s: float | None = None
    affinity: bool | None = None
    force: bool = False
    note: str | None = None
    memory_threshold_mb: int | None = None
    profile: str = ""
    outside_job: bool = False


@dataclass(frozen=True, slots=True)
class ReserveRequest:
    """GPUs of this node for the caller, for `duration_s` seconds.

    None means `DEFAULT_RESERVE_S`, or the site's `run.max_reserve_s` where that is shorter.
    """

    gpus: GpuRequest
    duration_s: float | None = None


@dataclass(frozen=True, slots=True)
class RunRequest:
    """GPUs of this node for a command, which the caller's process is to execute.

    The command is ended after `timeout_s` seconds; None sets no limit. With `ends_when_lost` it is
    ended when its reservation is lost. `on_terminal` is True if the caller has a terminal.
    """

    gpus: GpuRequest
    command: tuple[str, ...]
    timeout_s: float | None = None
    ends_when_lost: bool = False
    on_terminal: bool = False


@dataclass(frozen=True, slots=True)
class Reserved:
    """GPUs reserved for `duration_s` seconds.

    `owner` is the token of their owner. `in_use` are the UUIDs of the GPUs that were taken by force
    while in unreserved use. `environment` has the variables by which a program finds its GPUs.
    """

    node: str
    owner: str
    gpus: tuple[GpuReading, ...]
    in_use: frozenset[str]
    duration_s: float
    environment: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class RunStarted:
    """GPUs reserved for the caller's process, which now executes the command.

    `environment` is the whole environment of the command. `owner` and `in_use` are as in
    `Reserved`. If the command cannot be executed, call `NodeService.cancel_run`.
    """

    node: str
    owner: str
    gpus: tuple[GpuReading, ...]
    in_use: frozenset[str]
    environment: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class RunInsideJob:
    """The caller is inside a scheduler's job; the command gets devices of that job.

    `devices` are named as in CUDA_VISIBLE_DEVICES. `environment` is the whole environment of the
    command.
    """

    job_id: str
    devices: tuple[str, ...]
    environment: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ThroughScheduler:
    """On this host the scheduler grants GPUs: execute this command, with its whole environment."""

    command: tuple[str, ...]
    environment: Mapping[str, str]
