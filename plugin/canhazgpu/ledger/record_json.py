"""Convert the ledger's records between JSON and values.

The scripts write these records; other programs may have changed them. A GPU whose record cannot
be read is still reserved, or still quarantined. A detail of the wrong type counts as unknown.
``scripts/shared/reservations.lua`` decides by the same rules whether a reservation can be read.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from canhazgpu.ledger.co_holders import combine
from canhazgpu.ledger.values import (
    RECORD_ERRORS,
    Claim,
    Quarantine,
    Reservation,
    Share,
    Waiter,
    bounded_name,
    claim_to_dict,
)
from canhazgpu.node.process_id import ProcessId

UNREADABLE_OWNER = "unreadable"
"""The owner of a reservation whose record cannot be read; an administrator can release it."""

SHARED_OWNER = "shared"
"""The owner in the record of a GPU that several jobs share; their own records are in its list.

A release that does not know shares reads one owner, whom it never finds gone."""

MAX_FACTS_LEVELS = 8
"""Levels of lists and objects in the facts of an event; hooks write three."""

UNKNOWN_CLAIM = Claim(owner=UNREADABLE_OWNER, type="unknown", user="unknown")


def to_json(value: Any) -> str:
    r"""Return compact JSON that a script can read.

    Python keeps a byte that is not valid UTF-8 as half of a surrogate pair. It is not escaped:
    the client replaces the character, while a script cannot read the escape ``\udcff``.
    """
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def claim_to_json(claim: Claim) -> str:
    """Return the claim for a script."""
    return to_json(claim_to_dict(claim))


def with_valid_text(claim: Claim) -> Claim:
    """Return the claim with ``?`` for each byte that was no text: as the store would have it."""
    texts = {name: getattr(claim, name) for name in ("user", "job_name", "note")}
    valid = {
        name: text and text.encode("utf-8", "replace").decode() for name, text in texts.items()
    }
    return claim if valid == texts else replace(claim, **valid)


def waiter_to_json(waiter: Waiter) -> str:
    """Return the waiter for a script; the script sets the times."""
    return to_json(waiter_to_dict(waiter))


def waiter_to_dict(waiter: Waiter) -> dict[str, Any]:
    """Return the waiter for JSON, without its times."""
    known = {
        name: getattr(waiter, name)
        for name in ("owner", "user", "uid", "count", "gpus", "boot_id", "pid_namespace", "lease_s")
    }
    known["processes"] = processes_to_list(waiter.processes)
    known["profile"] = waiter.profile or None
    return {name: value for name, value in known.items() if value not in (None, (), [])}


def processes_to_list(processes: tuple[ProcessId, ...]) -> list[dict[str, int]]:
    """Return the processes for JSON."""
    return [{"pid": one.pid, "started": one.started} for one in processes]


def reservation_from_json(gpu: str, text: str) -> Reservation:
    """Return the reservation recorded for a GPU.

    A record that cannot be read is a reservation of `UNKNOWN_CLAIM`: a GPU that somebody may hold
    is never shown as free.
    """
    try:
        data = json.loads(text)
    except RECORD_ERRORS:
        data = None
    return reservation_from_value(gpu, data)


def reservation_from_value(gpu: str, data: Any) -> Reservation:
    """Return the reservation of a record that was parsed; see `reservation_from_json`."""
    try:
        if data["owner"] != SHARED_OWNER:
            return _reservation_from_dict(gpu, data)
        holders = [_reservation_from_dict(gpu, one) for one in data["holders"]]
    except RECORD_ERRORS:
        holders = []
    return combine(holders) or Reservation(gpu, UNKNOWN_CLAIM, 0.0)


def _reservation_from_dict(gpu: str, data: Any) -> Reservation:
    claim, granted_ms = claim_from_dict(data), data["granted_ms"]
    if not _is_number(granted_ms):
        raise TypeError("the time of the grant is a number")
    return Reservation(
        gpu,
        claim,
        granted_ms / 1000,
        seconds_of(data, "expires_ms"),
        seconds_of(data, "renewed_ms"),
        seconds_of(data, "idle_ms") or 0.0,
    )


def reservation_to_dict(one: Reservation) -> dict[str, Any]:
    """Return the reservation as the scripts record it."""
    if one.co_holders:
        holders = [reservation_to_dict(holder) for holder in one.holders]
        users = ",".join(dict.fromkeys(holder["user"] for holder in holders))
        shared = {"owner": SHARED_OWNER, "type": one.claim.type, "user": users}
        return {**shared, "granted_ms": int(one.granted_at * 1000), "holders": holders}
    times = {
        "granted_ms": one.granted_at,
        "expires_ms": one.expires_at,
        "renewed_ms": one.renewed_at,
    }
    known = {name: int(at * 1000) for name, at in times.items() if at is not None}
    return {**claim_to_dict(one.claim), **known}


def reservation_to_json(one: Reservation) -> str:
    """Return the JSON that `reservation_from_json` reads."""
    return to_json(reservation_to_dict(one))


def quarantine_from_json(gpu: str, text: str) -> Quarantine:
    """Return the quarantine recorded for a GPU; an unreadable record still quarantines it."""
    try:
        data = json.loads(text)
    except RECORD_ERRORS:
        data = None
    return quarantine_from_value(gpu, data)


def quarantine_from_value(gpu: str, data: Any) -> Quarantine:
    """Return the quarantine of a record that was parsed; see `quarantine_from_json`."""
    try:
        reason, since = bounded_name(_text(data["reason"])), seconds_of(data, "since_ms")
        if since is None:
            raise ValueError("a quarantine has a time")
        return Quarantine(gpu, reason, since, bounded_name(str(data.get("by", "unknown"))))
    except RECORD_ERRORS:
        return Quarantine(gpu, "unreadable quarantine record", 0.0, "unknown")


def queue_from_hash(records: Mapping[str, str], now: float) -> tuple[Waiter, ...]:
    """Return the waiters in queue order; expired and unreadable ones are left out."""
    known = []
    for owner, text in records.items():
        try:
            data = json.loads(text)
            waiter = waiter_from_dict(owner, data)
            if waiter.renewed_at + waiter.lease_s >= now and _is_number(data["order"]):
                known.append((data["order"], owner, waiter))
        except RECORD_ERRORS:
            continue
    return tuple(waiter for _, _, waiter in sorted(known, key=lambda one: one[:2]))


def indices_from_json(text: str) -> dict[str, int]:
    """Return indices of GPUs by UUID; none for a text that is no such record."""
    try:
        return indices_from_value(json.loads(text))
    except RECORD_ERRORS:
        return {}


def indices_from_value(data: Any) -> dict[str, int]:
    """Return the indices of a record that was parsed; see `indices_from_json`."""
    if not isinstance(data, dict):
        return {}
    return {uuid: index for uuid, index in data.items() if type(index) is int}


def seconds_from_ms_text(text: str | None) -> float | None:
    """Return the seconds for a text of milliseconds; None if the text is not a number."""
    try:
        seconds = None if text is None else float(text) / 1000
    except ValueError:
        return None
    return seconds if seconds is not None and math.isfinite(seconds) else None


def claim_from_dict(data: Any) -> Claim:
    """Return the claim; raises one of `RECORD_ERRORS` if owner, type or user is missing."""
    details = _valid_details(data, _CLAIM_DETAILS)
    details.update({name: bounded_name(details[name]) for name in _NAMES if name in details})
    return Claim(
        owner=_text(data["owner"]),
        type=_text(data["type"]),
        user=bounded_name(_text(data["user"])),
        **details,
        processes=_processes(data),
        share=share_from_dict(data.get("share")),
    )


def share_from_dict(data: Any) -> Share | None:
    """Return the share; None for anything else, which counts as the whole GPU."""
    if not isinstance(data, dict):
        return None
    known = _valid_details(data, _SHARE_DETAILS)
    return Share(**known) if known.keys() == _SHARE_DETAILS.keys() else None


def facts_from_json(value: Any, levels: int = MAX_FACTS_LEVELS) -> Any:
    """Return the value with nothing in it that JSON, a terminal or arithmetic does not take.

    A number that no float holds, or that is none, is None; half of a surrogate pair is ``?``.
    What is nested deeper than `levels` is None.
    """
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value if _is_number(value) else None
    if isinstance(value, dict | list) and not levels:
        return None
    if isinstance(value, dict):
        named = {facts_from_json(key): one for key, one in value.items()}
        return {key: facts_from_json(one, levels - 1) for key, one in named.items()}
    if isinstance(value, list):
        return [facts_from_json(one, levels - 1) for one in value]
    return value


def seconds_of(data: Mapping[str, Any], name: str) -> float | None:
    """Return the seconds of a field in milliseconds; None if the field is not a number."""
    return data[name] / 1000 if _is_number(data.get(name)) else None


def waiter_from_dict(owner: str, data: Any) -> Waiter:
    """Return the waiter with its times (ms); raises one of `RECORD_ERRORS` without a lease."""
    renewed_ms, lease_s = data["renewed_ms"], data["lease_s"]
    if not _is_number(renewed_ms) or not _is_number(lease_s):
        raise TypeError("a waiter has a lease")
    details = _valid_details(data, _WAITER_DETAILS)
    gpus = data.get("gpus", [])
    return Waiter(
        owner=owner,
        user=bounded_name(details.get("user", "unknown")),
        uid=details.get("uid"),
        count=details.get("count", 0),
        gpus=tuple(map(_text, gpus)) if isinstance(gpus, list) else (),
        boot_id=details.get("boot_id"),
        processes=_processes(data),
        pid_namespace=details.get("pid_namespace"),
        lease_s=lease_s,
        since=seconds_of(data, "since_ms") or 0.0,
        renewed_at=renewed_ms / 1000,
        profile=details.get("profile", ""),
    )


def _processes(data: Mapping[str, Any]) -> tuple[ProcessId, ...]:
    listed = data.get("processes", [])
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        return ()
    ids = [(one.get("pid"), one.get("started")) for one in listed]
    return tuple(ProcessId(*pair) for pair in ids if all(map(_is_integer, pair)))


def _valid_details(
    data: Mapping[str, Any], details: Mapping[str, Callable[[Any], bool]]
) -> dict[str, Any]:
    return {
        name: data[name]
        for name, is_good in details.items()
        if name in data and is_good(data[name])
    }


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("no text")
    return value


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_integer(value: Any) -> bool:
    return type(value) is int


def _is_amount(value: Any) -> bool:
    # A larger number than a float holds could not be divided.
    return _is_integer(value) and _is_number(value)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


_NAMES = ("job_name", "note")
_CLAIM_DETAILS: dict[str, Callable[[Any], bool]] = {
    "uid": _is_integer,
    "job_id": _is_text,
    "job_name": _is_text,
    "ends_at": _is_number,
    "boot_id": _is_text,
    "note": _is_text,
    "duration_s": _is_number,
    "pid_namespace": _is_integer,
    "follows": lambda value: value is True,
}
_SHARE_DETAILS: dict[str, Callable[[Any], bool]] = {
    "kind": _is_text,
    "amount": _is_amount,
    "total": _is_amount,
}
_WAITER_DETAILS: dict[str, Callable[[Any], bool]] = {
    "user": _is_text,
    "uid": _is_integer,
    "count": _is_integer,
    "boot_id": _is_text,
    "pid_namespace": _is_integer,
    "profile": _is_text,
}
