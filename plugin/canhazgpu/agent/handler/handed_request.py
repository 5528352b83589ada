"""A request on its way from the listener to a handler that was forked before: one message."""

from __future__ import annotations

import json
import socket
from dataclasses import astuple

from canhazgpu.agent.peer import Peer
from canhazgpu.agent.request import Door, Request

MAX_BYTES = 128 * 1024
"""Of one message; a longer request gets a handler of its own."""


def encode_handed(request: Request) -> bytes:
    """Return the message, which its connection's descriptor goes with. Raises `OSError`."""
    facts = {
        "door": request.door.value,
        "peer": astuple(request.peer),
        "status": request.status,
        "agent": request.agent,
        "frame_bytes": len(request.frame),
    }
    message = json.dumps(facts).encode() + b"\n" + request.frame + request.rest
    if len(message) > MAX_BYTES:
        raise OSError("the request is too long for one message")
    return message


def receive_handed(end: socket.socket, reports: int) -> Request | None:
    """Wait for the request; None where the listener wants none taken any more."""
    message, descriptors, _, _ = socket.recv_fds(end, MAX_BYTES, 1)
    if not message or not descriptors:
        return None
    head, _, content = message.partition(b"\n")
    facts = json.loads(head)
    frame_bytes = facts["frame_bytes"]
    return Request(
        socket.socket(fileno=descriptors[0]),
        content[:frame_bytes],
        content[frame_bytes:],
        Door(facts["door"]),
        Peer(*facts["peer"]),
        facts["status"],
        facts["agent"],
        reports,
    )
