"""Orders and answers as text: both ways, and whatever else somebody writes."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canhazgpu.errors import CanhazgpuError, InputError, StoreError, UnavailableError
from canhazgpu.gpu.ids import GpuIndex, MigIndex, UuidPrefix
from canhazgpu.ledger.values import Claim, Quarantine, Reservation
from canhazgpu.node.process_id import ProcessId
from canhazgpu.people.holdings import Holding
from canhazgpu.service.health import (
    QuarantineAnswer,
    QuarantineChange,
    QuarantineRequest,
    UnquarantineRequest,
)
from canhazgpu.service.holdings import (
    ExtendAnswer,
    ExtendRequest,
    ReleaseAnswer,
    ReleaseRequest,
    RevokeRequest,
)
from canhazgpu.service.order_answers import OrderAnswer, answer_from_text, answer_to_text
from canhazgpu.service.orders import (
    MAX_SKEW_S,
    MAX_WAIT_S,
    Order,
    OrderedRequest,
    OrderError,
    OrderGiver,
    order_from_text,
    order_to_text,
    refuse_if_void,
)

GPUS = (GpuIndex(0), MigIndex(1, 2), UuidPrefix("GPU-68ab"))
GIVER = OrderGiver(1000, "alice", "login1", is_administrator=False)
CLAIM = Claim("manual:1", "manual", "alice", 1000, note="x", processes=(ProcessId(5, 6),))


def order(request: OrderedRequest) -> Order:
    return Order("n1", request, GIVER, given_at=1000.0, wait_s=60.0)


@pytest.mark.parametrize(
    "request_",
    [
        ReleaseRequest(),
        ReleaseRequest(gpus=GPUS, force=True),
        ExtendRequest(60.0),
        ExtendRequest(0.5, gpus=GPUS),
        RevokeRequest("maintenance, é", gpus=GPUS, user="bob", owner="run:1", job_id="7"),
        RevokeRequest("x", user="bob"),
        QuarantineRequest(GPUS, "fan"),
        UnquarantineRequest(GPUS),
    ],
)
def test_an_order_is_what_it_was(request_: OrderedRequest) -> None:
    assert order_from_text(order_to_text(order(request_))) == order(request_)


BASE: dict[str, Any] = json.loads(order_to_text(order(RevokeRequest("why", gpus=GPUS))))


def changed(**changes: Any) -> str:
    return json.dumps({**BASE, **changes})


def with_request(verb: str = "revoke", **request: Any) -> str:
    return changed(verb=verb, request=request)


def with_giver(**changes: Any) -> str:
    return changed(giver={**BASE["giver"], **changes})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "[]",
        "null",
        "{}",
        "1" * 5000,
        "[" * 100_000,
        '{"form": NaN}',
        changed(form=2),
        changed(form=True),
        changed(form="1"),
        changed(verb="forget"),
        changed(verb=""),
        changed(verb=["revoke"]),
        changed(verb="__class__"),
        changed(node=""),
        changed(node="../n1"),
        changed(node="n1\n"),
        changed(node=None),
        changed(more=1),
        changed(given_at="now"),
        changed(given_at=-1),
        changed(given_at=1e300),
        changed(given_at=True),
        changed(wait_s=0),
        changed(wait_s=-5),
        changed(wait_s=MAX_WAIT_S + 1),
        changed(wait_s=None),
        changed(request=[]),
        changed(giver="root"),
        with_giver(uid=-1),
        with_giver(uid=2**32 - 1),
        with_giver(uid=1.0),
        with_giver(uid=True),
        with_giver(uid="0"),
        with_giver(user=""),
        with_giver(user="a\nb"),
        with_giver(user="x" * 1000),
        with_giver(host="a b"),
        with_giver(is_administrator=1),
        with_giver(is_administrator="yes"),
        with_giver(groups=[0]),
        changed(giver={}),
        with_request(),
        with_request(reason=""),
        with_request(reason="a\x1b[2J"),
        with_request(reason="x" * 501),
        with_request(reason=5),
        with_request(reason="x", node="n2"),
        with_request(reason="x", gpus=[0]),
        with_request(reason="x", gpus="all"),
        with_request(reason="x", gpus="0-99999"),
        with_request(reason="x", gpus="-1"),
        with_request(reason="x", gpus="0,0"),
        with_request("release", force="yes"),
        with_request("release", reason="x"),
        with_request("extend"),
        with_request("extend", duration_s=0),
        with_request("extend", duration_s=-60),
        with_request("extend", duration_s=1e12),
        with_request("extend", duration_s="1h"),
        with_request("quarantine", reason="x"),
        with_request("unquarantine"),
    ],
)
def test_what_is_no_order_is_refused_with_a_reason(text: str) -> None:
    with pytest.raises(OrderError) as caught:
        order_from_text(text)

    assert str(caught.value).isprintable() and len(str(caught.value)) < 300


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda some: (
        st.lists(some, max_size=4) | st.dictionaries(st.text(max_size=8), some, max_size=4)
    ),
    max_leaves=20,
)


@given(
    st.sampled_from(sorted(BASE)),
    JSON,
    st.sampled_from(sorted({*BASE["request"], "duration_s", "force", "job_id"})),
    JSON,
)
def test_no_value_makes_it_anything_but_an_order_or_a_refusal(
    member: str, value: Any, field: str, content: Any
) -> None:
    for text in (
        json.dumps({**BASE, member: value}),
        json.dumps({**BASE, "request": {**BASE["request"], field: content}}),
        json.dumps({**BASE, "giver": {**BASE["giver"], field: content}}),
        json.dumps(value),
    ):
        try:
            found = order_from_text(text)
        except OrderError:
            continue
        assert isinstance(found, Order)
        assert order_from_text(order_to_text(found)) == found


@pytest.mark.parametrize(
    ("node", "now", "told"),
    [
        ("n2", 1001.0, "it is for n1"),
        ("n1", 1060.5, "given up"),
        ("n1", 1000.0 - MAX_SKEW_S - 1, "future"),
    ],
)
def test_an_order_that_is_void(node: str, now: float, told: str) -> None:
    with pytest.raises(OrderError, match=told):
        refuse_if_void(order(ReleaseRequest()), node, now)
    refuse_if_void(order(ReleaseRequest()), "n1", 1059.0)
    refuse_if_void(order(ReleaseRequest()), "n1", 990.0)


RELEASED = ReleaseAnswer("n1", {"GPU-0": "0"}, (Holding(CLAIM, ("GPU-0",)),), ("GPU-0",))
ANSWERS: list[OrderAnswer] = [
    RELEASED,
    ReleaseAnswer("n1", {}, (), None, (Holding(CLAIM, ("GPU-1", "GPU-2")),)),
    ExtendAnswer("n1", 5.0, {}, (Reservation("GPU-0", CLAIM, 1.0, 9.0),), ("GPU-1",)),
    QuarantineAnswer(
        "n1",
        {"GPU-0": "0"},
        (
            QuarantineChange(
                "GPU-0", True, Quarantine("GPU-0", "fan", 3.0, "root"), (CLAIM,), "ECC"
            ),
            QuarantineChange("GPU-1", False),
        ),
    ),
]


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_answer_is_what_it_was(answer: OrderAnswer) -> None:
    assert answer_from_text(type(answer), answer_to_text(answer), "n1") == answer


@pytest.mark.parametrize(
    "error",
    [InputError("no"), StoreError("away", next_step="start it"), UnavailableError("late"),
     OrderError("void")],
)  # fmt: skip
def test_an_error_is_raised_again_as_its_kind(error: CanhazgpuError) -> None:
    with pytest.raises(CanhazgpuError) as caught:
        answer_from_text(ReleaseAnswer, answer_to_text(error), "n1")

    found = caught.value
    assert isinstance(error, type(found))
    assert (str(found), found.next_step) == (str(error), error.next_step)


def test_a_fault_beside_what_was_done_survives() -> None:
    answer = replace(RELEASED, fault=StoreError("away"))

    found = answer_from_text(ReleaseAnswer, answer_to_text(answer), "n1")

    assert str(found.fault) == "away" and isinstance(found.fault, StoreError)


@pytest.mark.parametrize(
    "text",
    ["", "x", "[]", "{}", "7", '{"answer":{}}', '{"answer":[]}', '{"answer":7}', '{"error":7}',
     '{"error":{"kind":"KeyError","text":"x"}}', '{"error":{"kind":"InputError","text":7}}',
     '{"error":null}', answer_to_text(ANSWERS[2]), "[" * 100_000],
)  # fmt: skip
def test_another_text_is_the_stores_error(text: str) -> None:
    with pytest.raises(StoreError, match="n1 answered with something else"):
        answer_from_text(ReleaseAnswer, text, "n1")
