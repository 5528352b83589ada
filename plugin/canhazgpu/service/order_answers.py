"""What a node answers to an order, as text; pure.

The one who reads it is on another host: what is no such text becomes a `StoreError` there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar, cast

from canhazgpu.errors import (
    CanhazgpuError,
    ConfigError,
    InputError,
    NodeStateError,
    ScanError,
    StoreError,
    UnavailableError,
)
from canhazgpu.ledger.record_json import (
    claim_from_dict,
    quarantine_from_json,
    reservation_from_json,
    reservation_to_json,
)
from canhazgpu.ledger.values import RECORD_ERRORS, Claim, Quarantine, claim_to_dict
from canhazgpu.people.holdings import Holding
from canhazgpu.service.health import QuarantineAnswer, QuarantineChange
from canhazgpu.service.holdings import ExtendAnswer, ReleaseAnswer

OrderAnswer = ReleaseAnswer | ExtendAnswer | QuarantineAnswer

_ERRORS: dict[str, type[CanhazgpuError]] = {
    one.__name__: one
    for one in (ConfigError, InputError, NodeStateError, ScanError, StoreError, UnavailableError)
}


def answer_to_text(answer: OrderAnswer | CanhazgpuError) -> str:
    """Return the text of what a request returned or raised."""
    if isinstance(answer, CanhazgpuError):
        return json.dumps({"error": _error_to_dict(answer)})
    return json.dumps({"answer": _ENCODERS[type(answer)](answer)})


Answer = TypeVar("Answer", bound=OrderAnswer)


def answer_from_text(kind: type[Answer], text: str, node: str) -> Answer:
    """Return the node's answer to a request; raises the error with which it was answered.

    Raises `StoreError` for what is no answer of this kind.
    """
    try:
        found = json.loads(text)
        answer = None if "error" in found else _DECODERS[kind](found["answer"])
        error = _error_from_dict(found["error"]) if answer is None else None
    except (*RECORD_ERRORS, AttributeError) as exc:
        raise StoreError(
            f"{node} answered with something else than an answer",
            next_step="it runs another release, or another program writes into its keys",
        ) from exc
    if answer is None:
        raise error or StoreError(f"{node} answered nothing")
    # What another node says of itself cannot be about a third one.
    return cast(Answer, replace(answer, node=node))


def _error_to_dict(error: CanhazgpuError) -> dict[str, Any]:
    kind = next((one for one in type(error).__mro__ if one.__name__ in _ERRORS), StoreError)
    return {"kind": kind.__name__, "text": str(error), "next_step": error.next_step}


def _error_from_dict(found: Mapping[str, Any]) -> CanhazgpuError:
    step = found.get("next_step")
    return _ERRORS[found["kind"]](
        _text(found["text"]), next_step=None if step is None else _text(step)
    )


def _holdings_to_list(found: tuple[Holding, ...]) -> list[dict[str, Any]]:
    return [{"claim": claim_to_dict(one.claim), "gpus": list(one.gpus)} for one in found]


def _holdings_from_list(found: list[Any]) -> tuple[Holding, ...]:
    return tuple(Holding(claim_from_dict(one["claim"]), _texts(one["gpus"])) for one in found)


def _release_to_dict(answer: ReleaseAnswer) -> dict[str, Any]:
    return {
        "indices": dict(answer.display_indices),
        "released": _holdings_to_list(answer.released),
        "named": None if answer.named_gpus is None else list(answer.named_gpus),
        "running": _holdings_to_list(answer.run_holdings),
        "fault": None if answer.fault is None else _error_to_dict(answer.fault),
    }


def _release_from_dict(found: Mapping[str, Any]) -> ReleaseAnswer:
    named = found["named"]
    return ReleaseAnswer(
        "",
        _indices(found),
        _holdings_from_list(found["released"]),
        None if named is None else _texts(named),
        _holdings_from_list(found["running"]),
        _fault(found),
    )


def _extend_to_dict(answer: ExtendAnswer) -> dict[str, Any]:
    return {
        "indices": dict(answer.display_indices),
        "read_at": answer.read_at,
        "extended": {one.gpu: reservation_to_json(one) for one in answer.extended},
        "expired": list(answer.expired),
    }


def _extend_from_dict(found: Mapping[str, Any]) -> ExtendAnswer:
    return ExtendAnswer(
        "",
        float(found["read_at"]),
        _indices(found),
        tuple(reservation_from_json(*one) for one in found["extended"].items()),
        _texts(found["expired"]),
    )


def _quarantine_to_dict(answer: QuarantineAnswer) -> dict[str, Any]:
    return {
        "indices": dict(answer.display_indices),
        "changes": [_change_to_dict(one) for one in answer.changes],
        "fault": None if answer.fault is None else _error_to_dict(answer.fault),
    }


def _quarantine_from_dict(found: Mapping[str, Any]) -> QuarantineAnswer:
    return QuarantineAnswer(
        "", _indices(found), tuple(map(_change_from_dict, found["changes"])), _fault(found)
    )


def _change_to_dict(change: QuarantineChange) -> dict[str, Any]:
    return {
        "gpu": change.gpu,
        "changed": change.changed,
        "previous": None if change.previous is None else _quarantine_json(change.previous),
        "holders": [claim_to_dict(one) for one in change.holders],
        "unhealthy": change.unhealthy,
    }


def _change_from_dict(found: Mapping[str, Any]) -> QuarantineChange:
    gpu, previous = _text(found["gpu"]), found["previous"]
    return QuarantineChange(
        gpu,
        found["changed"] is True,
        None if previous is None else quarantine_from_json(gpu, _text(previous)),
        _claims(found["holders"]),
        _text(found["unhealthy"]),
    )


def _quarantine_json(one: Quarantine) -> str:
    return json.dumps({"reason": one.reason, "since_ms": one.since * 1000, "by": one.by})


def _claims(found: list[Any]) -> tuple[Claim, ...]:
    return tuple(map(claim_from_dict, found))


def _fault(found: Mapping[str, Any]) -> CanhazgpuError | None:
    return None if found["fault"] is None else _error_from_dict(found["fault"])


def _indices(found: Mapping[str, Any]) -> dict[str, str]:
    return {_text(gpu): _text(index) for gpu, index in found["indices"].items()}


def _texts(found: list[Any]) -> tuple[str, ...]:
    return tuple(map(_text, found))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("no text")
    return value


_ENCODERS: dict[type, Callable[[Any], dict[str, Any]]] = {
    ReleaseAnswer: _release_to_dict,
    ExtendAnswer: _extend_to_dict,
    QuarantineAnswer: _quarantine_to_dict,
}
_DECODERS: dict[type, Callable[[Any], OrderAnswer]] = {
    ReleaseAnswer: _release_from_dict,
    ExtendAnswer: _extend_from_dict,
    QuarantineAnswer: _quarantine_from_dict,
}
