"""Entries of a node's journal in the form that the script ``record.lua`` takes; pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from canhazgpu.ledger.entries import GRANT, RELEASE, Entry, Numbered
from canhazgpu.ledger.values import claim_to_dict

STANDS, PASSES, YIELDS = "stands", "passes", "yields"


def entries_to_json(entries: Sequence[Numbered]) -> str:
    """Return the entries for the script; what a later entry takes back is marked so."""
    told = [_told(one) for one in entries]
    open_grants: dict[str, dict[str, Any]] = {}
    for one, form in zip(entries, told, strict=True):
        entry = one.entry
        if entry.kind == GRANT:
            open_grants[entry.owner] = form
        elif entry.kind == RELEASE and (grant := open_grants.get(entry.owner)):
            gone = [gpu for gpu in grant["gpus"] if not entry.gpus or gpu in entry.gpus]
            form["passed"] = dict.fromkeys(gone, grant["claim"])
            if len(gone) == len(grant["gpus"]):
                grant["mode"] = PASSES
                del open_grants[entry.owner]
    return json.dumps(told)


def _told(one: Numbered) -> dict[str, Any]:
    entry = one.entry
    return {
        "number": one.number,
        "kind": entry.kind,
        "at_ms": int(entry.at * 1000),
        "owner": entry.owner,
        "gpus": list(entry.gpus),
        "claim": _claim_text(entry),
        "reason": entry.reason,
        "by": entry.by,
        "facts": json.dumps(dict(entry.facts)) if entry.facts else "",
        "mode": YIELDS if entry.yields else STANDS,
        "passed": {},
    }


def _claim_text(entry: Entry) -> str:
    if entry.claim is None:
        return ""
    form = claim_to_dict(entry.claim)
    if entry.kind == GRANT:
        form["granted_ms"] = int(entry.at * 1000)
    if entry.expires_at is not None:
        form["expires_ms"] = int(entry.expires_at * 1000)
    return json.dumps(form)
