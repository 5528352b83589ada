"""Frames: whatever the pieces in which they arrive, and whatever is no message."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canhazgpu.agent.wire.framing import MAX_MESSAGE_BYTES, Inbox, WireError, decode, encode
from canhazgpu.agent.wire.interface import environment_of, parse_call

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(st.lists(st.dictionaries(st.text(), JSON, max_size=3), max_size=4), st.integers(1, 50))
def test_messages_arrive_whatever_the_pieces(messages: list[dict[str, object]], size: int) -> None:
    sent = b"".join(encode(one) for one in messages)
    inbox, found = Inbox(), []
    for start in range(0, len(sent), size):
        inbox.add(sent[start : start + size])
        while (frame := inbox.take()) is not None:
            found.append(decode(frame))

    assert found == messages
    assert inbox.rest == b""


def test_a_message_that_is_too_long_is_refused_before_its_end() -> None:
    inbox = Inbox()
    inbox.add(b"x" * (MAX_MESSAGE_BYTES - 1))
    with pytest.raises(WireError):
        inbox.add(b"x")


@pytest.mark.parametrize("frame", [b"", b"[]", b"1", b"{", b"\xff", b"[" * 100_000])
def test_what_is_no_object_is_refused(frame: bytes) -> None:
    with pytest.raises(WireError):
        decode(frame)


@pytest.mark.parametrize("message", [{}, {"method": 1}, {"method": "a", "parameters": []}])
def test_what_is_no_call_is_refused(message: dict[str, object]) -> None:
    with pytest.raises(WireError):
        parse_call(message)


@pytest.mark.parametrize(
    "environment",
    [None, [], {"A": 1}, {"": "x"}, {"A=": "x"}, {"A": "\0"}, {f"A{n}": "" for n in range(1001)}],
)
def test_what_is_no_environment_is_refused(environment: object) -> None:
    call = parse_call({"method": "a", "parameters": {"environment": environment}})
    with pytest.raises(WireError):
        environment_of(call)


def test_only_variables_for_hooks_are_taken() -> None:
    wanted = {"SLURM_JOB_ID": "7", "CANHAZGPU_CONFIG": "/x", "HOOK_LOST_S": "1", "TZ": "UTC"}
    call = parse_call(
        {
            "method": "a",
            "parameters": {"environment": {**wanted, "LD_PRELOAD": "/x", "PATH": "/x", "HOME": ""}},
        }
    )
    assert environment_of(call) == wanted
