"""The messages between a command's client and the agent: one call, and what comes back."""

import errno

from canhazgpu.agent.client_connection import AgentBusy, connect_in_turn, send
from canhazgpu.agent.command_client.caller import call_parameters
from canhazgpu.agent.hook_client import INTERFACE, NotServed, decoded

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Iterator
    from typing import Any

NEEDED_VERSION = 3
READY_WAIT_S = 20.0
MAX_CALL_BYTES = 128 * 1024
"""Half of what a message may have: a waiting request is handed on with more beside it."""


class AgentRefuses(PermissionError):
    """It does not carry out such a request, whoever asks how often."""


class AgentEnded(Exception):
    """The connection broke before the outcome came."""


def ask(
    path: str,
    arguments: "list[str]",
    ready_wait_s: float = READY_WAIT_S,
    silence_s: "float | None" = None,
) -> "Iterator[dict[str, Any]]":
    """Yield what the command writes and its outcome; the first one is empty: from then on it acts.

    It is waited for so long, in seconds: until it begins, and then from one message to the next.
    Raises `AgentBusy`, `AgentRefuses`, `NotServed`, `OSError` and `AgentEnded`.
    """
    call = call_parameters(arguments)
    if len(call) > MAX_CALL_BYTES:
        raise AgentRefuses(
            errno.E2BIG,
            f"the command line is longer than {MAX_CALL_BYTES // 1024} KiB, and the node's agent"
            " takes no longer one: put the command into a script",
        )
    connection = connect_in_turn(path, int(ready_wait_s))
    try:
        yield from _conversation(connection, call, ready_wait_s, silence_s)
    finally:
        connection.close()


def _conversation(
    connection: "_socket.socket", call: str, ready_wait_s: float, silence_s: "float | None"
) -> "Iterator[dict[str, Any]]":
    messages = received(connection, ready_wait_s)
    send(connection, f'{{"method":"{INTERFACE}.Command","parameters":{call}}}')
    ready = parameters_of(next(messages))
    if ready["interface"] < NEEDED_VERSION or not str(ready["nonce"]).isalnum():
        raise NotServed
    # From the first byte on the agent may act.
    yield {}
    nonce = f'{{"nonce":"{ready["nonce"]}"}}'
    send(connection, f'{{"method":"{INTERFACE}.Proceed","parameters":{nonce},"more":true}}')
    # The command may wait for as long as its user has said.
    connection.settimeout(silence_s)
    for message in messages:
        yield parameters_of(message)
        if not message.get("continues"):
            return


def received(connection: "_socket.socket", wait_s: float) -> "Iterator[dict[str, Any]]":
    """Yield the messages that come; raises `AgentEnded` where no more come."""
    connection.settimeout(wait_s)
    rest = b""
    while True:
        try:
            chunk = connection.recv(1 << 16)
        except ConnectionResetError:
            chunk = b""
        if not chunk:
            raise AgentEnded
        *frames, rest = (rest + chunk).split(b"\0")
        for frame in frames:
            yield decoded(frame.decode())


def parameters_of(message: "dict[str, Any]") -> "dict[str, Any]":
    """Return the parameters; raises `AgentBusy`, `NotServed` and `OSError` for an error."""
    error = str(message.get("error", ""))
    if error in (f"{INTERFACE}.Busy", f"{INTERFACE}.Unavailable"):
        raise AgentBusy
    if error.startswith("org.varlink.service."):
        # It is of a release that does not carry out commands.
        raise NotServed
    if error:
        why = f"the node's agent refuses this request: {error.rpartition('.')[2]}"
        raise AgentRefuses(errno.EPERM, why)
    found = message.get("parameters")
    if type(found) is not dict:
        raise OSError(errno.EPROTO, "it answered with something else")
    return found
