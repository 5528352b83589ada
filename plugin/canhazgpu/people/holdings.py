"""Pure: who holds which GPUs of a node now, and how that is said."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from canhazgpu.gpu.scan import GpuReading
from canhazgpu.ledger.values import Claim, NodeView, Reservation, Waiter

NOT_IN_SCAN = "the last scan does not show it"


@dataclass(frozen=True, slots=True)
class Holding:
    """What one owner holds, or those of its GPUs (UUIDs) that are meant."""

    claim: Claim
    gpus: tuple[str, ...]


def current_reservations(view: NodeView) -> dict[str, Reservation]:
    """Return the reservations by GPU, without those whose time is over."""
    return {
        gpu: one
        for gpu, one in view.reservations.items()
        if one.expires_at is None or one.expires_at > view.read_at
    }


def current_waiters(view: NodeView) -> tuple[Waiter, ...]:
    """Return who waits, the next one first, without those who gave no sign of life in time."""
    return tuple(one for one in view.queue if one.renewed_at + one.lease_s > view.read_at)


def holdings(
    view: NodeView, meant: Callable[[Reservation], bool], gpus: Sequence[str] | None = None
) -> tuple[Holding, ...]:
    """Return the reservations that are meant (of `gpus`, if any are named), by owner."""
    found: dict[str, list[Reservation]] = {}
    for gpu, one in current_reservations(view).items():
        if meant(one) and (gpus is None or gpu in gpus):
            found.setdefault(one.claim.owner, []).append(one)
    return tuple(
        Holding(some[0].claim, tuple(sorted(one.gpu for one in some)))
        for _, some in sorted(found.items())
    )


def scanned_and_ledger_gpus(
    view: NodeView, readings: Iterable[GpuReading]
) -> tuple[GpuReading, ...]:
    """Return the readings, and after them the GPUs that only the ledger still knows of."""
    seen = tuple(readings)
    uuids = {gpu.uuid for gpu in seen}
    held = sorted({*view.reservations, *view.quarantines} - uuids)
    return seen + tuple(
        GpuReading(-1, uuid, None, "", None, None, fault=NOT_IN_SCAN) for uuid in held
    )


def gpu_list_text(gpus: Iterable[str], places: Mapping[str, str]) -> str:
    """Return ``GPU 0, 3`` by the GPUs' places, and by their UUIDs where those are not known."""
    return "GPU " + ", ".join(
        sorted((places.get(gpu, gpu) for gpu in gpus), key=_display_index_key)
    )


def gpu_display_indices(readings: Iterable[GpuReading]) -> dict[str, str]:
    """Return the place of every GPU that has one, by UUID."""
    return {gpu.uuid: gpu.display_index for gpu in readings if gpu.uuid and gpu.index >= 0}


def _display_index_key(name: str) -> tuple[bool, int, str]:
    index = name.partition(":")[0]
    return (not index.isdecimal(), int(index) if index.isdecimal() else 0, name)


def holder_name(claim: Claim) -> str:
    """Return who holds a GPU and as what: ``alice (run)``, ``alice (job 12)``."""
    what = f"job {claim.job_id}" if claim.job_id else claim.type
    return f"{claim.user} ({what})"
