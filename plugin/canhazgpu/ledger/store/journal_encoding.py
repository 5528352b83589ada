"""Encode the entries of a node's journal as the script ``record.lua`` takes them; pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from canhazgpu.ledger.gpu_use import held_use
from canhazgpu.ledger.journal_entries import (
    EXTEND,
    GRANT,
    NOTE_KINDS,
    RELEASE,
    USE_KINDS,
    JournalEntry,
    NumberedEntry,
)
from canhazgpu.ledger.record_json import reservation_to_dict
from canhazgpu.ledger.release_reasons import was_unused
from canhazgpu.ledger.store.history.note_facts import compact_note
from canhazgpu.ledger.values import Claim, Reservation

STANDS, PASSES, YIELDS = "stands", "passes", "yields"


def encode_entries(entries: Sequence[NumberedEntry]) -> list[dict[str, Any]]:
    """Return the entries for the script.

    Grants and extensions of what a later entry releases are marked.
    """
    encoded = [_encode_entry(one) for one in entries]
    open_grants: dict[str, dict[str, Any]] = {}
    extensions: dict[str, list[dict[str, Any]]] = {}
    for one, fields in zip(entries, encoded, strict=True):
        entry = one.entry
        if entry.kind == EXTEND:
            extensions.setdefault(entry.owner, []).append(fields)
        if entry.kind == RELEASE:
            for extension in extensions.get(entry.owner, ()):
                if _is_released(extension, entry):
                    extension["mode"] = PASSES
        if entry.kind == GRANT:
            open_grants[entry.owner] = fields
        elif (
            entry.kind == RELEASE
            and (grant := open_grants.get(entry.owner))
            and entry.grant in (None, grant.get("grant"))
        ):
            released = [gpu for gpu in grant["gpus"] if not entry.gpus or gpu in entry.gpus]
            fields["passed"] = dict.fromkeys(released, grant["claim"])
            if len(released) == len(grant["gpus"]):
                grant["mode"] = PASSES
                del open_grants[entry.owner]
    return encoded


def _is_released(extension: dict[str, Any], release: JournalEntry) -> bool:
    return release.grant in (None, extension.get("grant")) and (
        not release.gpus or set(extension["gpus"]) <= set(release.gpus)
    )


def _encode_entry(one: NumberedEntry) -> dict[str, Any]:
    entry = one.entry
    fields: dict[str, Any] = {
        "number": one.number,
        "kind": entry.kind,
        "at_ms": int(entry.at * 1000),
        "owner": entry.owner,
        "gpus": list(entry.gpus),
        "reason": entry.reason,
        "by": entry.by,
        "mode": YIELDS if entry.yields else STANDS,
        "passed": {},
        "unused": entry.kind == RELEASE and was_unused(entry.reason, entry.by),
    }
    if entry.grant is not None:
        fields["grant"] = entry.grant
    if entry.kind in NOTE_KINDS:
        fields |= _encode_note(entry)
        tells_use = entry.kind in USE_KINDS and entry.claim is not None
        if tells_use and (use := held_use(entry.facts.get("use"))):
            fields["used"] = [use.held_ms, use.amounts]
    return fields if entry.claim is None else {**fields, "claim": _encode_claim(entry, entry.claim)}


def _encode_note(entry: JournalEntry) -> dict[str, Any]:
    note = compact_note(entry.kind, entry.facts)
    return {
        "gpus": note.gpus,
        "places": note.indices,
        "took_ms": "" if note.took_ms is None else note.took_ms,
        "facts": json.dumps(note.rest, separators=(",", ":")) if note.rest else "",
    }


def _encode_claim(entry: JournalEntry, claim: Claim) -> dict[str, Any]:
    encoded = reservation_to_dict(Reservation("", claim, entry.at, entry.expires_at))
    return encoded if entry.grant is None else {**encoded, "grant_number": entry.grant}
