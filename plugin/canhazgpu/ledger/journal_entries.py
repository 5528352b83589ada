"""Entries of a node's journal: what the store is still to record; pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from typing import Any

from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.ledger.record_json import (
    SHARED_OWNER,
    UNREADABLE_OWNER,
    reservation_from_json,
    reservation_to_json,
)
from canhazgpu.ledger.values import Claim, Reservation

GRANT = "grant"
RELEASE = "release"
EXTEND = "extend"
QUARANTINE = "quarantine"
UNQUARANTINE = "unquarantine"
PROLOG = "prolog"
EPILOG = "epilog"
HEALTH = "health"
USE = "use"
NOTE_KINDS = (PROLOG, EPILOG, HEALTH, USE)
"""The kinds that change no reservation: they describe what a hook saw and decided; and what a run
made of its GPUs, which of a job its epilog tells."""
USE_KINDS = (EPILOG, USE)
"""Those that may have the fact ``use``."""
ENTRY_KINDS = (GRANT, RELEASE, EXTEND, QUARANTINE, UNQUARANTINE, *NOTE_KINDS)


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One thing that happened on a node.

    `at` is in seconds since the epoch, by the node's estimate of the store's clock.

    ``grant``: the claim's owner holds exactly `gpus` from `at` until `expires_at` (None: no
    end). With `yields`, a GPU that another owner holds stays with that owner. `grant` is its
    number; earlier releases of canhazgpu gave none.
    ``release``: `owner` no longer holds `gpus`; empty `gpus` means all of its GPUs. With `grant`,
    only what the grant of this number gave it.
    ``extend``: the owner holds `gpus`, which it was granted before, until `expires_at`; it is given
    those that the store has taken from it because it did not know so, unless the entry `yields`.
    ``quarantine`` and ``unquarantine`` concern the one GPU in `gpus`.
    The other kinds are notes: `reason` and `facts` describe what happened.
    """

    kind: str
    at: float
    owner: str = ""
    gpus: tuple[str, ...] = ()
    claim: Claim | None = None
    reason: str = ""
    by: str = ""
    expires_at: float | None = None
    yields: bool = False
    grant: int | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NumberedEntry:
    """An entry and its number in its journal; numbers start at 1."""

    number: int
    entry: JournalEntry


@dataclass(frozen=True, slots=True)
class OverruledReservation:
    """A GPU that the ledger had granted to another owner although a job runs on it.

    `before` is the reservation that was removed; `owner` and `user` are the job's.
    """

    gpu: str
    before: Reservation
    owner: str
    user: str


_SHARED_PREFIX = f"{SHARED_OWNER}:"
"""Before the owner of a grant of a share.

A release that does not know shares then holds the GPU for an owner that it never finds gone,
instead of for the last of the jobs that share it."""


def entry_to_dict(entry: JournalEntry) -> dict[str, Any]:
    """Return the entry for JSON; empty fields are left out."""
    if entry.kind == GRANT and entry.claim is not None and entry.claim.share is not None:
        owner = _SHARED_PREFIX + entry.owner
        entry = replace(entry, owner=owner, claim=replace(entry.claim, owner=owner))
    known: dict[str, Any] = {"kind": entry.kind, "at": entry.at}
    for name in ("owner", "reason", "by"):
        if text := getattr(entry, name):
            known[name] = text
    if entry.gpus:
        known["gpus"] = list(entry.gpus)
    if entry.claim is not None:
        known["claim"] = reservation_to_json(Reservation("", entry.claim, entry.at))
    if entry.expires_at is not None:
        known["expires_at"] = entry.expires_at
    if entry.yields:
        known["yields"] = True
    if entry.grant is not None:
        known["grant"] = entry.grant
    if entry.facts:
        known["facts"] = dict(entry.facts)
    return known


def entry_from_dict(data: Mapping[str, Any]) -> JournalEntry:
    """Return the entry that `entry_to_dict` wrote.

    Raises one of `RECORD_ERRORS` for anything else.
    """
    claim = data.get("claim")
    facts = data.get("facts", {})
    if data["kind"] not in ENTRY_KINDS or not isinstance(facts, dict):
        raise ValueError("no kind of entry")
    entry = JournalEntry(
        kind=data["kind"],
        at=seconds_of(data["at"]),
        owner=_text(data.get("owner", "")),
        gpus=_texts(data.get("gpus", [])),
        claim=None if claim is None else _claim(claim),
        reason=_text(data.get("reason", "")),
        by=_text(data.get("by", "")),
        expires_at=seconds_of(data["expires_at"]) if "expires_at" in data else None,
        yields=data.get("yields", False) is True,
        grant=_number(data["grant"]) if "grant" in data else None,
        facts=facts,
    )
    if not _is_whole(entry):
        raise ValueError("a grant has a claim, an extension an end, and a release an owner")
    if entry.claim is not None and entry.claim.share is not None:
        owner = entry.owner.removeprefix(_SHARED_PREFIX)
        return replace(entry, owner=owner, claim=replace(entry.claim, owner=owner))
    return entry


def _is_whole(entry: JournalEntry) -> bool:
    if entry.kind == EXTEND:
        return entry.claim is not None and entry.expires_at is not None
    return (
        entry.claim is not None
        if entry.kind == GRANT
        else entry.kind != RELEASE or bool(entry.owner)
    )


def _claim(text: str) -> Claim:
    claim = reservation_from_json("", text).claim
    if claim.owner == UNREADABLE_OWNER:
        raise ValueError("no claim")
    return claim


def _texts(values: Sequence[Any]) -> tuple[str, ...]:
    if not isinstance(values, list):
        raise TypeError("no list")
    return tuple(map(_text, values))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("no text")
    return value


def _number(value: Any) -> int:
    if type(value) is not int:
        raise TypeError("no number")
    return value


def seconds_of(value: Any) -> float:
    """Return the number of seconds; raises one of `RECORD_ERRORS` for what is no finite number."""
    if type(value) not in (int, float) or not math.isfinite(value):
        raise TypeError("no time")
    return float(value)
