"""What somebody holds: extend it, release it, and take it away from others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from canhazgpu.errors import CanhazgpuError
    from canhazgpu.gpu.ids import GpuSelector
    from canhazgpu.ledger.values import Reservation
    from canhazgpu.people.holdings import Holding


@dataclass(frozen=True, slots=True)
class ReleaseRequest:
    """The caller's reservations on a node (None: this one).

    Those of the named GPUs, or (None) all that were made by hand. With `force` also the GPUs of a
    running command, if named.
    """

    node: str | None = None
    gpus: tuple[GpuSelector, ...] | None = None
    force: bool = False


@dataclass(frozen=True, slots=True)
class RevokeRequest:
    """Anybody's reservations on a node (None: this one); of several conditions all must hold."""

    reason: str
    node: str | None = None
    gpus: tuple[GpuSelector, ...] | None = None
    user: str | None = None
    owner: str | None = None
    job_id: str | None = None


@dataclass(frozen=True, slots=True)
class ReleaseAnswer:
    """What was released, owner by owner; `places` has the places of GPUs by UUID.

    `named` are the UUIDs of the GPUs that were named, None where none were. `running` is what the
    caller's running commands hold. `fault` ended it before all was released.
    """

    node: str
    places: Mapping[str, str]
    released: tuple[Holding, ...]
    named: tuple[str, ...] | None = None
    running: tuple[Holding, ...] = ()
    fault: CanhazgpuError | None = None


@dataclass(frozen=True, slots=True)
class ExtendRequest:
    """The caller's reservations for a time on a node (None: this one), `duration_s` longer."""

    duration_s: float
    node: str | None = None
    gpus: tuple[GpuSelector, ...] | None = None


@dataclass(frozen=True, slots=True)
class ExtendAnswer:
    """The reservations as they are now, and the GPUs (UUIDs) whose reservation was over by then.

    `read_at` is now, by the store's clock, in seconds since the epoch.
    """

    node: str
    read_at: float
    places: Mapping[str, str]
    extended: tuple[Reservation, ...]
    over: tuple[str, ...] = ()
