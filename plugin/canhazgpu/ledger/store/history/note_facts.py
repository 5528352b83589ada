"""What a hook's note keeps of its facts in the history, and the facts that are read from it; pure.

Most notes say that all went as usual: the job got its GPUs, which were free, or gave them back. Of
these facts nothing is written but the GPUs, their indices, and how long the hook took.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.ledger.journal_entries import EPILOG, PROLOG

USUAL_OUTCOMES = {PROLOG: "granted", EPILOG: "released"}
FREE = "free"
_PLAIN_FIELDS = frozenset({"gpu", "place", "state", "used_mb"})
_INDEX = re.compile(r"[0-9A-Za-z.:/-]{1,16}")


@dataclass(frozen=True, slots=True)
class CompactNote:
    """A note's facts as the history keeps them.

    `indices` are those of the `gpus` (UUIDs), "" where one is not known. `took_ms` is None where
    the facts do not say it. `rest` are the facts that are not as usual; None stands for a usual
    fact that these facts lack.
    """

    gpus: tuple[str, ...]
    indices: tuple[str, ...]
    took_ms: int | None
    rest: Mapping[str, Any]


def compact_note(kind: str, facts: Mapping[str, Any]) -> CompactNote:
    """Return the facts without what `note_facts` can add again.

    The memory that a free GPU of the job has in use is not kept.
    """
    rest = dict(facts)
    took_ms = _whole_ms(facts.get("took_s"))
    if took_ms is not None:
        del rest["took_s"]
    if kind not in USUAL_OUTCOMES:
        return CompactNote((), (), took_ms, rest)
    for name in ("outcome", "gpus", "seen"):
        rest.setdefault(name, None)
    named = _texts(facts.get("gpus"))
    if named is not None:
        del rest["gpus"]
    if rest["outcome"] == USUAL_OUTCOMES[kind]:
        del rest["outcome"]
    indices = _plain_indices(facts.get("seen"))
    if indices is not None and indices.keys() == set(named or ()):
        del rest["seen"]
    known = indices or {}
    gpus = named or ()
    return CompactNote(gpus, tuple(known.get(gpu, "") for gpu in gpus), took_ms, rest)


def note_facts(
    kind: str,
    rest: Mapping[str, Any],
    gpus: Sequence[str],
    indices: Sequence[str],
    took_ms: float | None,
) -> dict[str, Any]:
    """Return the facts of a note from what `compact_note` left of them."""
    facts: dict[str, Any] = {}
    if kind in USUAL_OUTCOMES:
        facts["outcome"] = USUAL_OUTCOMES[kind]
    if took_ms is not None:
        facts["took_s"] = took_ms / 1000
    if kind in USUAL_OUTCOMES:
        facts["gpus"] = list(gpus)
        facts["seen"] = [
            {"gpu": gpu, "place": index, "state": FREE}
            for gpu, index in zip(gpus, indices, strict=True)
        ]
    facts |= rest
    return {name: value for name, value in facts.items() if value is not None}


def _whole_ms(took_s: Any) -> int | None:
    """Return the milliseconds of a time that has no smaller part, else None."""
    if type(took_s) not in (int, float) or not 0 <= took_s < 1e9:
        return None
    took_ms = round(took_s * 1000)
    return took_ms if took_ms / 1000 == took_s else None


def _plain_indices(seen: Any) -> dict[str, str] | None:
    """Return the index of each GPU that a scan saw, if all were free, and nothing more is told."""
    if not isinstance(seen, list):
        return None
    indices = {}
    for one in seen:
        if not isinstance(one, dict) or not one.keys() <= _PLAIN_FIELDS or one.get("state") != FREE:
            return None
        gpu, index = one.get("gpu"), one.get("place")
        if not isinstance(gpu, str) or not isinstance(index, str) or not _INDEX.fullmatch(index):
            return None
        indices[gpu] = index
    return indices


def _texts(values: Any) -> tuple[str, ...] | None:
    """Return the texts of a list that has nothing else, else None."""
    if isinstance(values, list) and all(isinstance(one, str) and one for one in values):
        return tuple(values)
    return None
