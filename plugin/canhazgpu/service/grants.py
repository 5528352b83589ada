"""GPUs for people: for a time (reserve), and for as long as a command runs (run)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from canhazgpu.gpu.ids import GpuSelector
    from canhazgpu.gpu.scan import GpuReading


@dataclass(frozen=True, slots=True)
class GpuRequest:
    """The GPUs asked for: so many, or exactly these; and how long to wait for them.

    `wait_s` is None for as long as it takes, 0 for not at all. `affinity` prefers the GPUs that the
    caller had last; None leaves that to the site. With `force` also GPUs in unreserved use are
    taken. `memory_threshold_mb` stands for the configured one.
    """

    count: int
    selectors: tuple[GpuSelector, ...] = ()
    wait_s: float | None = None
    affinity: bool | None = None
    force: bool = False
    note: str | None = None
    memory_threshold_mb: int | None = None


@dataclass(frozen=True, slots=True)
class ReserveRequest:
    """GPUs of this node for the caller, for `duration_s` seconds."""

    gpus: GpuRequest
    duration_s: float


@dataclass(frozen=True, slots=True)
class RunRequest:
    """GPUs of this node for a command, which takes the place of the caller's process.

    `timeout_s` ends the command after so long; with `ends_when_lost` it ends with its reservation.
    `on_terminal` tells whether the caller sits at a terminal.
    """

    gpus: GpuRequest
    command: tuple[str, ...]
    timeout_s: float | None = None
    ends_when_lost: bool = False
    on_terminal: bool = False


@dataclass(frozen=True, slots=True)
class Reserved:
    """GPUs reserved for `duration_s` seconds, and the variables by which a program sees them.

    `in_use` are the UUIDs of those that somebody uses without reservation, taken by force.
    """

    node: str
    owner: str
    gpus: tuple[GpuReading, ...]
    in_use: frozenset[str]
    duration_s: float
    environment: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class RunStarted:
    """GPUs reserved for the caller's process; the command is to be executed in it.

    `environment` is the command's whole environment; `in_use` as in `Reserved`.
    """

    node: str
    owner: str
    gpus: tuple[GpuReading, ...]
    in_use: frozenset[str]
    environment: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class RunInsideJob:
    """The caller is in a scheduler's job, whose devices the command gets, as CUDA names them."""

    job_id: str
    devices: tuple[str, ...]
    environment: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ThroughScheduler:
    """The scheduler gives this host's GPUs: the command that asks it, and its environment."""

    command: tuple[str, ...]
    environment: Mapping[str, str]
