"""What a request for GPUs is answered: they are granted, or why they are not; pure."""

from __future__ import annotations

from enum import Enum

from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.ledger.values import Reservation


@dataclass(frozen=True, slots=True)
class GrantedGpus:
    """Everything requested was granted; `repeated` if the owner held these GPUs already."""

    gpus: tuple[str, ...]
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class TooFewGpus:
    """Fewer GPUs were available than requested; nothing was granted.

    The other fields count the GPUs that were not available: `reserved`, in use without a
    reservation (`unreserved`), `quarantined`, released after the scan began (`stale`), and GPUs
    whose state could not be read (`unknown`).
    """

    requested: int
    available: int
    reserved: int
    unreserved: int
    quarantined: int
    stale: int
    unknown: int = 0


@dataclass(frozen=True, slots=True)
class BlockedGpu:
    """A GPU that was requested by UUID is not available; nothing was granted.

    `why` is ``reserved``, ``unreserved``, ``quarantined``, ``unknown`` or ``stale``. `holder` is
    the reservation that prevents the grant, if there is one.
    """

    gpu: str
    why: str
    holder: Reservation | None = None


class CommitRefusal(Enum):
    """Why a grant does not stand; the value says it to people."""

    CANCELLED = "it was cancelled meanwhile"
    LATE = "it took longer than it may"
    FENCED = "its attempt has ended"
    PEER_GONE = "who asked for it is gone"


@dataclass(frozen=True, slots=True)
class QueuePosition:
    """Others are before the owner in the queue; nothing was granted. `position` starts at 1."""

    position: int
