"""Who holds which GPUs of a node now, and the GPUs as text; pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.gpu.scan import GpuReading, missing_gpu_reading
from canhazgpu.ledger.co_holders import without_expired
from canhazgpu.ledger.values import Claim, NodeView, Reservation, Waiter

NOT_IN_SCAN = "the last scan does not show it"


@dataclass(frozen=True, slots=True)
class Holding:
    """GPUs (UUIDs) that one owner holds: all of them or the selected ones."""

    claim: Claim
    gpus: tuple[str, ...]


def current_reservations(view: NodeView) -> dict[str, Reservation]:
    """Return the reservations by GPU, without expired ones."""
    return without_expired(view.reservations, view.read_at)


def current_waiters(view: NodeView) -> tuple[Waiter, ...]:
    """Return the waiters, the next one first, without those whose lease has ended."""
    return tuple(one for one in view.queue if one.renewed_at + one.lease_s > view.read_at)


def holdings(
    view: NodeView, is_selected: Callable[[Reservation], bool], gpus: Sequence[str] | None = None
) -> tuple[Holding, ...]:
    """Return the selected reservations by owner, only those of `gpus` if any are named."""
    found: dict[str, list[Reservation]] = {}
    for gpu, held in current_reservations(view).items():
        if gpus is None or gpu in gpus:
            for one in filter(is_selected, held.holders):
                found.setdefault(one.claim.owner, []).append(one)
    return tuple(
        Holding(some[0].claim, tuple(sorted(one.gpu for one in some)))
        for _, some in sorted(found.items())
    )


def scanned_and_ledger_gpus(
    view: NodeView, readings: Iterable[GpuReading]
) -> tuple[GpuReading, ...]:
    """Return the readings, and after them the GPUs that only the ledger knows."""
    seen = tuple(readings)
    uuids = {gpu.uuid for gpu in seen}
    held = sorted({*view.reservations, *view.quarantines} - uuids)
    return seen + tuple(missing_gpu_reading(uuid, NOT_IN_SCAN) for uuid in held)


def gpu_list_text(gpus: Iterable[str], display_indices: Mapping[str, str]) -> str:
    """Return ``GPU 0, 3``; a GPU without a known index is named by its UUID."""
    return "GPU " + ", ".join(
        sorted((display_indices.get(gpu, gpu) for gpu in gpus), key=_display_index_key)
    )


def gpu_display_indices(readings: Iterable[GpuReading]) -> dict[str, str]:
    """Return the display index of every GPU that has one, by UUID."""
    return {gpu.uuid: gpu.display_index for gpu in readings if gpu.uuid and gpu.index >= 0}


def _display_index_key(name: str) -> tuple[bool, int, str]:
    index = name.partition(":")[0]
    return (not index.isdecimal(), int(index) if index.isdecimal() else 0, name)
