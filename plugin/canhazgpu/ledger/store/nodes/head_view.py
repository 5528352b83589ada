"""What a node's head says, as a view of the node. ``scripts/at_end/head.lua`` has its form."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from canhazgpu.frozen_dataclass import quick_constructor
from canhazgpu.gpu.scan_brief import scan_from_brief
from canhazgpu.ledger.record_json import (
    indices_from_value,
    quarantine_from_value,
    queue_from_hash,
    reservation_from_value,
    seconds_from_ms_text,
)
from canhazgpu.ledger.store.nodes.node_views import partitions_from_value, recorded_view
from canhazgpu.ledger.values import NodeView, Reservation

HEAD_FORM = 2
_ENTRY_ID = re.compile(r"[0-9]{1,19}-[0-9]{1,19}")

_new_reservation = quick_constructor(Reservation)

_TYPES = {
    "texts": dict,
    "brief": dict,
    "records": list,
    "held": dict,
    "released": dict,
    "quarantined": dict,
    "waiting": int,
}


def is_head(content: Any) -> bool:
    """Tell whether this is a head of the form that is known here."""
    if type(content) is not dict or content.get("form") != HEAD_FORM:
        return False
    if any(type(content.get(name)) is not kind for name, kind in _TYPES.items()):
        return False
    texts = content["texts"]
    if not {"last", "at"} <= texts.keys() or any(type(one) is not str for one in texts.values()):
        return False
    return is_entry_id(texts["last"])


def is_entry_id(text: str) -> bool:
    """Tell whether this is the id of a history's entry, or "" for none."""
    return not text or _ENTRY_ID.fullmatch(text) is not None


def scan_time_text(content: Mapping[str, Any]) -> str:
    """Return the time of the head's scan, as the node's scan records it."""
    text: str = content["texts"]["at"]
    return text


def view_from_head(
    node: str, read_at: float, content: Mapping[str, Any], queue: Mapping[str, str]
) -> NodeView | None:
    """Return the view; None where a part of the head is no such part."""
    texts = content["texts"]
    try:
        return recorded_view(
            node,
            read_at,
            scan=scan_from_brief(node, content["brief"]),
            scanned_at=seconds_from_ms_text(texts["at"]),
            reservations=_reservations(content["records"], content["held"]),
            released_at={
                gpu: seconds_from_ms_text(text) for gpu, text in content["released"].items()
            },
            quarantines={
                gpu: quarantine_from_value(gpu, record)
                for gpu, record in content["quarantined"].items()
            },
            queue=queue_from_hash(queue, read_at) if queue else (),
            most_gpus=indices_from_value(content["most"]),
            partitions=partitions_from_value(content["partitions"]),
            partitions_at=seconds_from_ms_text(texts.get("partitions_at")),
            is_brief=True,
        )
    except (ValueError, TypeError, KeyError, IndexError, OverflowError, AttributeError):
        return None


def _reservations(records: list[Any], held: Mapping[str, int]) -> dict[str, Reservation]:
    """Return the reservations by GPU; a record is read once, however many GPUs it is for."""
    found: dict[str, Reservation] = {}
    read: dict[int, Reservation] = {}
    for gpu, place in held.items():
        known = read.get(place)
        if known is None or known.co_holders:
            found[gpu] = read[place] = reservation_from_value(gpu, records[place])
        else:
            times = (known.granted_at, known.expires_at, known.renewed_at, known.idle_s)
            found[gpu] = _new_reservation(gpu, known.claim, *times)
    return found
