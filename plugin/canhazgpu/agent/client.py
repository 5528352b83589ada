"""The agent's client for commands: one call, one answer, within a deadline."""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from canhazgpu.agent.hook_client import timeval
from canhazgpu.agent.peer import UnknownPeerError, peer_uid
from canhazgpu.agent.socket_files import people_socket, short_address
from canhazgpu.agent.wire import interface
from canhazgpu.agent.wire.framing import Inbox, WireError, decode, encode
from canhazgpu.errors import AgentError

DEFAULT_WAIT_S = 5.0


def call(
    state_dir: Path,
    method: str,
    parameters: Mapping[str, Any] | None = None,
    wait_s: float = DEFAULT_WAIT_S,
) -> dict[str, Any]:
    """Return the parameters of the answer of a node's agent, as `call_at` does."""
    return call_at(people_socket(state_dir), method, parameters, wait_s)


def call_at(
    path: Path,
    method: str,
    parameters: Mapping[str, Any] | None = None,
    wait_s: float = DEFAULT_WAIT_S,
) -> dict[str, Any]:
    """Return the parameters of the answer of the agent at this socket; raises `AgentError`.

    Only a process of root is asked: another user's socket in the agent's place is none.
    """
    ends_at = time.monotonic() + wait_s
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as agent:
            # Where more ask than fit into its queue of connections, this waits for a place there.
            agent.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval(math.ceil(wait_s)))
            with short_address(path) as address:
                agent.connect(address)
            agent.settimeout(max(ends_at - time.monotonic(), 0.001))
            _require_root(agent, path)
            agent.sendall(encode({"method": method, "parameters": dict(parameters or {})}))
            answer = decode(_frame(agent, ends_at))
    except (FileNotFoundError, ConnectionRefusedError) as exc:
        raise AgentError(f"no agent runs on this node: nobody listens at {path}") from exc
    except (TimeoutError, BlockingIOError) as exc:
        raise AgentError(f"the agent at {path} gave no answer within {wait_s:g} s") from exc
    except OSError as exc:
        raise AgentError(f"cannot ask the agent at {path}: {exc.strerror or exc}") from exc
    except WireError as exc:
        raise AgentError(f"the agent at {path} answered with something else: {exc}") from exc
    if "error" in answer:
        raise AgentError(_error_text(str(answer["error"]), path))
    found = answer.get("parameters", {})
    return found if isinstance(found, dict) else {}


def _require_root(agent: socket.socket, path: Path) -> None:
    try:
        uid = peer_uid(agent)
    except UnknownPeerError as exc:
        raise AgentError(f"who listens at {path} is not known: {exc}") from exc
    if uid != 0:
        raise AgentError(f"who listens at {path} is uid {uid}, not root: it is no agent")


def _frame(agent: socket.socket, ends_at: float) -> bytes:
    inbox = Inbox()
    while (frame := inbox.take()) is None:
        agent.settimeout(max(ends_at - time.monotonic(), 0.001))
        chunk = agent.recv(65536)
        if not chunk:
            raise WireError("it closed the connection")
        inbox.add(chunk)
    return frame


def _error_text(error: str, path: Path) -> str:
    if error == interface.BUSY:
        return f"the agent at {path} serves as many requests of yours as it takes; try again"
    if error == interface.METHOD_NOT_FOUND:
        return (
            f"the agent at {path} is of another release: 'canhazgpu agent reload' has it become"
            " this one"
        )
    return f"the agent at {path} refused: {error.rpartition('.')[2]}"
