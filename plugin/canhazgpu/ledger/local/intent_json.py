"""Intents between JSON and values; for the file of the node's book."""

from __future__ import annotations

from typing import Any

from canhazgpu.ledger.local.intent import Intent
from canhazgpu.ledger.record_json import (
    UNREADABLE_OWNER,
    reservation_from_json,
    reservation_to_json,
)
from canhazgpu.ledger.values import Reservation
from canhazgpu.node.process_id import ProcessId


def intent_to_dict(intent: Intent) -> dict[str, Any]:
    """Return the intent for JSON."""
    return {
        "number": intent.number,
        "claim": reservation_to_json(Reservation("", intent.claim, intent.at)),
        "gpus": list(intent.gpus),
        "writer": [intent.writer.pid, intent.writer.started],
        "deadline_s": intent.deadline_s,
        "at": intent.at,
    }


def intent_from_dict(data: dict[str, Any]) -> Intent:
    """Return the intent that `intent_to_dict` wrote; raises one of `RECORD_ERRORS` otherwise."""
    claim = reservation_from_json("", data["claim"]).claim
    if claim.owner == UNREADABLE_OWNER:
        raise ValueError("an intent has a claim")
    pid, started = map(int, data["writer"])
    return Intent(
        int(data["number"]),
        claim,
        tuple(map(str, data["gpus"])),
        ProcessId(pid, started),
        float(data["deadline_s"]),
        float(data["at"]),
    )
