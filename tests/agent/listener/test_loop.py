"""The listener's loop, step by step."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from polling import poll_until

from canhazgpu.agent.listener import loop
from canhazgpu.agent.listener.activity import Activity
from canhazgpu.agent.listener.admission import Admission, Limits
from canhazgpu.agent.listener.connections import Connection
from canhazgpu.agent.listener.helpers import Helpers
from canhazgpu.agent.listener.loop import OUT_OF_MEMORY, Listener
from canhazgpu.agent.request import RequestSocket

REQUEST = b"{}\0"


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(tmp_path / "s"))
        made.listen()
        made.setblocking(False)
        yield made


def listener_at(listening: socket.socket) -> Listener:
    activity = Activity("0", "n1", os.getpid())
    return Listener(
        {RequestSocket.PEOPLE: listening},
        Admission(Limits(1, 1, 1)),
        activity,
        lambda request: os._exit(0),
        Helpers(activity.fault),
    )


def once(error: Exception, then: Callable[..., Any]) -> Callable[..., Any]:
    """Raise the error at the first call."""
    left = [error]

    def call(*given: Any) -> Any:
        if left:
            raise left.pop()
        return then(*given)

    return call


@pytest.mark.parametrize(
    ("holder", "name"), [(loop, "peer_of"), (Connection, "read"), (loop, "Request")]
)
def test_it_survives_a_want_of_memory_and_serves_the_next(
    listening: socket.socket, holder: object, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it is: one peer alone may be turned away, and no slot is lost."""
    monkeypatch.setattr(holder, name, once(MemoryError(), getattr(holder, name)))
    listener = listener_at(listening)
    wake_up, other_end = os.pipe()
    try:
        for _ in range(2):
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(listening.getsockname())
                client.sendall(REQUEST)
                poll_until(lambda: listener.step(wake_up, 0.01) or closed(client))
                poll_until(lambda: listener.step(wake_up, 0.01) or not listener.busy)
    finally:
        os.close(wake_up)
        os.close(other_end)
    faults = [one["text"] for one in listener.activity.status()["faults"]]
    assert faults == [OUT_OF_MEMORY]


def closed(client: socket.socket) -> bool:
    """Whether the other side has closed the connection."""
    client.setblocking(False)
    try:
        return client.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
