"""The events in the entries of a node's history, of this release's form and of the last's; pure.

``scripts/at_end/history.lua`` and ``scripts/at_end/short_names.lua`` write them, and describe their
fields. Whatever another program wrote there is read as far as it can be.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.ledger.journal_entries import NOTE_KINDS
from canhazgpu.ledger.record_json import (
    MAX_FACTS_LEVELS,
    UNKNOWN_CLAIM,
    UNREADABLE_OWNER,
    claim_from_dict,
    facts_from_json,
    seconds_from_ms_text,
    seconds_of,
)
from canhazgpu.ledger.store.history.note_facts import note_facts
from canhazgpu.ledger.values import RECORD_ERRORS, Claim, Event, bounded_name

KIND = "2"
"""The first field of this release's form: the number of the form."""
KINDS = {
    "g": "grant",
    "r": "release",
    "x": "extend",
    "q": "quarantine",
    "u": "unquarantine",
    "w": "wait",
    "l": "leave",
    "p": "prolog",
    "e": "epilog",
    "h": "health",
    "s": "use",
}
USUAL_TYPES = {"job": "slurm"}
"""The type of a claim by the first word of its owner, where it is another word."""


@dataclass(frozen=True, slots=True)
class ShortNames:
    """What the numbers in a node's history mean, and the cluster of jobs that are named by number.

    `gpus` are UUID and index ("" where it is not known), `users` are ``UID NAME``. In entries up to
    the one at the position `after` the names are those of a table that was lost.
    """

    gpus: Mapping[str, tuple[str, str]]
    users: Mapping[str, str]
    cluster: str = ""
    after: tuple[int, int] = (0, 0)

    def serve(self, entry_id: str) -> bool:
        """Tell whether these are the names that the entry was written with."""
        return (entry_position(entry_id) or (0, 0)) > self.after


NO_NAMES = ShortNames({}, {})
UNKNOWN_USER = " unknown"


def short_names(meta: Mapping[str, str]) -> ShortNames:
    """Return the names in a node's ``history_meta``."""
    gpus, users = {}, {}
    for field, text in meta.items():
        kind, _, name = field.partition(":")
        number, _, rest = text.partition(" ")
        if number.isdecimal() and kind == "gpu":
            gpus[number] = (name, rest.partition(" ")[2])
        elif number.isdecimal() and kind == "user":
            users[number] = name
    after = entry_position(meta.get("after", "")) or (0, 0)
    return ShortNames(gpus, users, meta.get("cluster", ""), after)


def entry_position(entry_id: str) -> tuple[int, int] | None:
    """Return an entry's comparable position in its stream; None for what is no id."""
    ms, _, number = entry_id.partition("-")
    if not (ms.isascii() and ms.isdecimal() and number.isascii() and number.isdecimal()):
        return None
    return int(ms), int(number)


def events_from_entry(
    entry_id: str, fields: Mapping[str, str], names: ShortNames = NO_NAMES
) -> list[Event]:
    """Return the events of a stream entry, one for each GPU; none if the entry has no kind."""
    if not fields.get(KIND):
        former = event_from_fields(entry_id, fields)
        return [] if former is None else [former]
    kind, more = KINDS.get(fields[KIND], fields[KIND]), _more(fields.get("m", ""))
    at_ms = _entry_ms(entry_id) - (_number(fields.get("a", "")) or 0.0)
    names = names if names.serve(entry_id) else NO_NAMES
    gpus = _gpus(fields.get("g", ""), names)
    lasted_ms = _number(fields.get("d", ""))
    is_note, facts = kind in NOTE_KINDS, _facts(more.get("facts"))
    if is_note:
        facts = note_facts(kind, facts, *_columns(gpus), lasted_ms)
    granted_at = None if is_note or lasted_ms is None else (at_ms - lasted_ms) / 1000
    claim, by = _claim(fields, more, names), more.get("by")
    return [
        Event(
            id=entry_id,
            at=at_ms / 1000,
            kind=kind,
            gpu=gpu,
            claim=claim,
            granted_at=granted_at,
            reason=fields.get("r", ""),
            by=bounded_name(by) if isinstance(by, str) else "",
            idle_s=_idle_s(more, place),
            facts=facts,
        )
        for place, gpu in enumerate([""] if is_note or not gpus else [uuid for uuid, _ in gpus])
    ]


def event_from_fields(entry_id: str, fields: Mapping[str, str]) -> Event | None:
    """Return the event of an entry of the last release's form; None if the entry has no kind."""
    kind, claim, record = fields.get("event"), None, {}
    if not kind:
        return None
    if "claim" in fields:
        claim = UNKNOWN_CLAIM
        try:
            record = json.loads(fields["claim"])
            claim = claim_from_dict(record)
        except RECORD_ERRORS:
            record = {}
    return Event(
        id=entry_id,
        at=seconds_from_ms_text(fields.get("at"))
        or seconds_from_ms_text(entry_id.partition("-")[0])
        or 0.0,
        kind=kind,
        gpu=fields.get("gpu", ""),
        claim=claim,
        # The journal sets one in every claim; a hook's note is no grant.
        granted_at=None if kind in NOTE_KINDS else seconds_of(record, "granted_ms"),
        reason=fields.get("reason", ""),
        by=bounded_name(fields.get("by", "")),
        idle_s=seconds_of(record, "idle_ms") or 0.0,
        facts=_facts(_object(fields.get("facts", ""))),
    )


def _idle_s(more: Mapping[str, Any], place: int) -> float:
    """Return for how long the GPU at this place of the entry was idle."""
    idle = more.get("idle")
    if isinstance(idle, list):
        idle = idle[place] if place < len(idle) else None
    return seconds_of({"idle": idle}, "idle") or 0.0


def _claim(fields: Mapping[str, str], more: Mapping[str, Any], names: ShortNames) -> Claim | None:
    owner = _owner(fields.get("o", ""), names.cluster)
    if not owner:
        return None
    if owner == UNREADABLE_OWNER:
        return UNKNOWN_CLAIM
    user = fields.get("u", "")
    uid, _, name = (names.users.get(user, UNKNOWN_USER) if user.isdecimal() else user).partition(
        " "
    )
    words = owner.split(":")
    record: dict[str, Any] = {"owner": owner, "user": name, "uid": _uid(uid)}
    record["type"] = more.get("type", USUAL_TYPES.get(words[0], words[0]))
    is_job = words[0] == "job" and len(words) > 3
    record["job_id"] = more.get("job", words[-2] if is_job else None)
    share = more.get("share")
    if isinstance(share, list) and len(share) == 3:
        record["share"] = dict(zip(("kind", "amount", "total"), share, strict=True))
    try:
        return claim_from_dict(record)
    except RECORD_ERRORS:
        return UNKNOWN_CLAIM


def _owner(text: str, cluster: str) -> str:
    """Return the owner; a job of the usual cluster is named ``ID`` or ``ID:ATTEMPT``."""
    if text[:1].isdecimal():
        job_id, _, attempt = text.partition(":")
        return f"job:{cluster or '?'}:{job_id}:{attempt or '0'}"
    return text.removeprefix("=")


def _gpus(text: str, names: ShortNames) -> list[tuple[str, str]]:
    """Return UUID and index of each GPU; "" for one that the table lacks, or has not any more."""
    found = []
    for word in filter(None, text.split(",")):
        name, _, index = word.partition("@")
        uuid, first_index = names.gpus.get(name, ("", "")) if name.isdecimal() else (name, "")
        found.append((uuid, index or first_index))
    return found


def _columns(gpus: Sequence[tuple[str, str]]) -> tuple[list[str], list[str]]:
    return [uuid for uuid, _ in gpus], [index for _, index in gpus]


def _facts(facts: Any) -> dict[str, Any]:
    return facts_from_json(facts) if isinstance(facts, dict) else {}


def _more(text: str) -> dict[str, Any]:
    # The facts are one level below.
    return cast(dict[str, Any], facts_from_json(_object(text), MAX_FACTS_LEVELS + 1))


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text) if text else {}
    except RECORD_ERRORS:
        return {}
    return found if isinstance(found, dict) else {}


MAX_MS = 1e18
"""What is more is no time: thirty million years. Sums of times stay finite."""


def _entry_ms(entry_id: str) -> float:
    return _number(entry_id.partition("-")[0]) or 0.0


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if abs(number) <= MAX_MS else None


def _uid(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 11 else None
