"""Reservations that exist: extend them, release them, revoke those of others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from canhazgpu.frozen_dataclass import dataclass

if TYPE_CHECKING:
    from canhazgpu.errors import CanhazgpuError
    from canhazgpu.gpu.ids import GpuSelector
    from canhazgpu.ledger.values import Reservation
    from canhazgpu.people.holdings import Holding


@dataclass(frozen=True, slots=True)
class ReleaseRequest:
    """The caller's reservations on a node (None: this one), to be released.

    `gpus` None means all that the caller reserved by hand. GPUs of a running command are released
    only if `gpus` names them and `force` is True.
    """

    node: str | None = None
    gpus: tuple[GpuSelector, ...] | None = None
    force: bool = False


@dataclass(frozen=True, slots=True)
class RevokeRequest:
    """Anybody's reservations on a node (None: this one), to be released, and why.

    A reservation must meet every condition that is not None: its GPU, its user, its owner's token,
    its job's id.
    """

    reason: str
    node: str | None = None
    gpus: tuple[GpuSelector, ...] | None = None
    user: str | None = None
    owner: str | None = None
    job_id: str | None = None


@dataclass(frozen=True, slots=True)
class ReleaseAnswer:
    """What was released, owner by owner.

    `display_indices` has the display indices of the node's GPUs by UUID. `named_gpus` are the UUIDs
    of the GPUs that the request named, None if it named none. `run_holdings` is what the caller's
    running commands still hold. `fault` is the error that ended the request early, None for none.
    """

    node: str
    display_indices: Mapping[str, str]
    released: tuple[Holding, ...]
    named_gpus: tuple[str, ...] | None = None
    run_holdings: tuple[Holding, ...] = ()
    fault: CanhazgpuError | None = None


@dataclass(frozen=True, slots=True)
class ExtendRequest:
    """The caller's reservations by hand on a node (None: this one), `duration_s` seconds longer.

    `gpus` None means all of them.
    """

    duration_s: float
    node: str | None = None
    gpus: tuple[GpuSelector, ...] | None = None


@dataclass(frozen=True, slots=True)
class ExtendAnswer:
    """The reservations with their new end.

    `read_at` is the time of Redis, in seconds since the epoch. `display_indices` has the display
    indices of the node's GPUs by UUID. `expired` are the UUIDs of the GPUs whose reservation was
    over before it could be extended.
    """

    node: str
    read_at: float
    display_indices: Mapping[str, str]
    extended: tuple[Reservation, ...]
    expired: tuple[str, ...] = ()
