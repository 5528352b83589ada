"""One request, as the listener hands it over to a handler, and where it arrived."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from enum import Enum
from typing import Any

from canhazgpu.agent.peer import Peer
from canhazgpu.frozen_dataclass import dataclass


class RequestSocket(Enum):
    """The agent's sockets at which requests arrive."""

    HOOKS = "hooks"
    PEOPLE = "people"


@dataclass(frozen=True, slots=True)
class Request:
    """A connection whose first message has arrived.

    `frame` is that message without its end, `rest` what arrived after it. `status` is what the
    agent did until now; `agent` its pid; `reports` the descriptor for `write_report`.
    """

    connection: socket.socket
    frame: bytes
    rest: bytes
    arrived_at: RequestSocket
    peer: Peer
    status: Mapping[str, Any]
    agent: int
    reports: int
