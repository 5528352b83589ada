"""Amounts that cannot be, asked for through the agent: refused, and nobody is granted anything."""

from __future__ import annotations

import json
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hosts.account_files import ANN, write_accounts
from hosts.agent_node import AgentNode, make_agent_node

from canhazgpu.agent.socket_files import short_address
from canhazgpu.agent.wire import interface
from canhazgpu.agent.wire.framing import Inbox, decode

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes other users"),
]

AMOUNTS = (
    "-1", "-1h", "nan", "NaNh", "inf", "infs", "1e400", "1e400d", "9" * 400, "9" * 400 + "h",
    "0x10", "1_000h", "\u0663h", "\uff11h", " ", "", "1h\n1h", "99999999999999999999d",
)  # fmt: skip
"""None is a time or a number that anybody may have."""
ASKED = (
    ("reserve", "--nonblock", "--duration"),
    ("reserve", "--nonblock", "--duration", "1h", "--gpus"),
    ("reserve", "--nonblock", "--duration", "1h", "--memory-threshold"),
    ("reserve", "--duration", "1h", "--wait"),
    ("extend", "--duration"),
    ("run", "--nonblock", "--timeout"),
    ("run", "--nonblock", "--gpus"),
)


@pytest.fixture(scope="module")
def node() -> Iterator[AgentNode]:
    with tempfile.TemporaryDirectory() as directory:
        accounts = write_accounts(Path(directory) / "etc")
        with make_agent_node(2, changes=accounts) as made:
            yield made


def held(node: AgentNode) -> list[str]:
    (view,) = node.here.ledger().read_nodes(["n1"])
    return sorted(view.reservations)


@pytest.mark.parametrize("words", ASKED, ids=" ".join)
def test_amounts_that_cannot_be_are_refused(node: AgentNode, words: tuple[str, ...]) -> None:
    if words[0] == "extend":
        assert node.run("reserve", "--duration", "1h", user=ANN).returncode == 0
    before = held(node)
    rest = ("--", "true") if words[0] == "run" else ()
    wrong = []
    for amount in AMOUNTS:
        done = node.run(*words[:-1], f"{words[-1]}={amount}", *rest, user=ANN)
        said = done.stdout + done.stderr
        if done.returncode != 2 or "Traceback" in said or "internal error" in said:
            wrong.append((amount[:30], done.returncode, said[-300:]))
    assert wrong == []
    assert held(node) == before
    assert node.agent.status()["faults"] == []
    node.run("release", user=ANN)


SIZES = (-1, 0, 1, 10**400, 2**63, 1e308, float("nan"), float("inf"), 80.5, True, "80", [80])


@pytest.mark.parametrize("name", ["width", "height"])
def test_sizes_of_a_terminal_that_cannot_be_harm_nobody(node: AgentNode, name: str) -> None:
    """The interface's other numbers: a terminal's size is the client's to say."""
    answered, refused = 0, 0
    for size in SIZES:
        done = asked(node, {name: size})
        if done.get("error") == interface.INVALID_PARAMETER:
            refused += 1
        else:
            assert done["parameters"]["status"] == 0, (size, done)
            answered += 1
    assert answered and refused
    assert node.agent.status()["faults"] == []


def asked(node: AgentNode, terminal: dict[str, object]) -> dict[str, Any]:
    """The last message of a `status` for such a terminal."""
    with socket.socket(socket.AF_UNIX) as agent, short_address(node.agent.people_socket) as address:
        agent.connect(address)
        agent.settimeout(60)
        ready = called(agent, interface.COMMAND, arguments=["status"], terminal=terminal)
        if "error" in ready:
            return ready
        return called(agent, interface.PROCEED, nonce=ready["parameters"]["nonce"])


def called(agent: socket.socket, method: str, **parameters: object) -> dict[str, Any]:
    # NaN and Infinity are Python's own additions to JSON.
    call = {"method": method, "parameters": parameters, "more": True}
    agent.sendall(json.dumps(call).encode() + b"\0")
    inbox = Inbox()
    while True:
        while (frame := inbox.take()) is None:
            inbox.add(agent.recv(65536))
        message = decode(frame)
        if not message.get("continues"):
            return message
