"""Whatever is sent: the agent answers or cuts off, has no fault, and serves the next."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from hosts.running_agent import RunningAgent
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polling import poll_until

from canhazgpu.agent.socket_files import short_address
from canhazgpu.agent.wire import interface
from canhazgpu.agent.wire.framing import MAX_MESSAGE_BYTES

pytestmark = pytest.mark.slow

fuzzed = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
METHODS = sorted(
    value
    for name, value in vars(interface).items()
    if name.isupper() and isinstance(value, str) and value.count(".") > 1
)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=12,
)
CALLS = st.fixed_dictionaries(
    {},
    optional={
        "method": st.sampled_from(METHODS) | st.text(max_size=30) | JSON,
        "parameters": JSON
        | st.fixed_dictionaries(
            {},
            optional={
                "environment": JSON | st.dictionaries(st.text(max_size=9), st.text(max_size=9)),
                "interface": st.sampled_from([*interface.INTERFACES, "../../etc/passwd"]) | JSON,
                "nonce": JSON,
            },
        ),
        "more": JSON,
        "oneway": JSON,
        "upgrade": JSON,
    },
)
FRAMES = st.one_of(
    CALLS.map(lambda one: json.dumps(one).encode()),
    JSON.map(lambda one: json.dumps(one).encode()),
    st.binary(max_size=60),
    st.sampled_from([b"{" * 5000, b'{"a":' * 20_000, b"9" * 5000, b'"\\ud800"', b"\xff\xfe{}"]),
)


@pytest.fixture
def limits() -> dict[str, int]:
    """The places of the agent: so many that nobody is turned away here."""
    return {"max_requests": 64, "max_requests_per_user": 64}


def exchanged(agent: RunningAgent, socket_name: str, sent: bytes, pieces: int) -> bytes:
    """What comes back until the connection ends."""
    with (
        socket.socket(socket.AF_UNIX) as one,
        short_address(getattr(agent, socket_name)) as address,
    ):
        one.settimeout(120)
        one.connect(address)
        found = b""
        try:
            size = max(len(sent) // pieces, 1)
            for start in range(0, len(sent), size):
                one.sendall(sent[start : start + size])
            one.shutdown(socket.SHUT_WR)
            while chunk := one.recv(65536):
                found += chunk
        except (BrokenPipeError, ConnectionResetError):
            pass  # it was cut off
        return found


def messages(received: bytes) -> Iterator[dict[str, Any]]:
    *frames, rest = received.split(b"\0")
    assert rest == b""
    for frame in frames:
        message = json.loads(frame)
        assert isinstance(message, dict)
        yield message


@fuzzed
@given(st.lists(FRAMES, max_size=5), st.integers(1, 7), st.booleans())
def test_people_send_anything(
    agent: RunningAgent, frames: list[bytes], pieces: int, ends: bool
) -> None:
    sent = b"\0".join(frames) + (b"\0" if ends else b"")
    for message in messages(exchanged(agent, "people_socket", sent, pieces)):
        assert set(message) in ({"parameters"}, {"error", "parameters"})
    assert agent.status()["pid"] == agent.process.pid


@fuzzed
@given(CALLS.filter(lambda one: one.get("method") != interface.CONFIRM), st.integers(1, 7))
def test_hooks_send_anything_but_a_confirmation(
    agent: RunningAgent, call: dict[str, Any], pieces: int
) -> None:
    sent = json.dumps(call).encode() + b"\0"
    for message in messages(exchanged(agent, "hooks_socket", sent, pieces)):
        assert set(message) in ({"parameters"}, {"error", "parameters"})
    assert not any(agent.served(method) for method in ("JobStart", "JobEnd", "Check"))


@pytest.mark.parametrize("length", [MAX_MESSAGE_BYTES - 1, MAX_MESSAGE_BYTES])
def test_a_message_has_a_longest_length(agent: RunningAgent, length: int) -> None:
    padding = b'{"method":"io.canhazgpu.Agent.Status","x":""}'
    message = padding[:-2] + b"y" * (length - len(padding)) + padding[-2:]

    answer = exchanged(agent, "people_socket", message + b"\0", 1)

    assert (b"release" in answer) is (length < MAX_MESSAGE_BYTES)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may run an agent")
def test_descriptors_that_are_sent_are_not_kept(agent: RunningAgent) -> None:
    """A peer may attach descriptors to what it sends; nobody receives them."""
    agent.status()
    agent.wait_until_idle()
    agent.spare_handler()
    before = len(os.listdir(f"/proc/{agent.process.pid}/fd"))  # noqa: PTH208
    for _ in range(5):
        with socket.socket(socket.AF_UNIX) as one, short_address(agent.people_socket) as address:
            one.connect(address)
            null = os.open(os.devnull, os.O_RDONLY)
            socket.send_fds(one, [b'{"method":"io.canhazgpu.Agent.Status"}\0'], [null] * 50)
            os.close(null)
            one.settimeout(60)
            assert b"release" in one.recv(65536)
    poll_until(lambda: len(os.listdir(f"/proc/{agent.process.pid}/fd")) <= before)  # noqa: PTH208
