"""Requests on their way from the listener to a handler that was forked before: a message each.

Most of a forked process' time is the first use of its memory. So a handler of hooks that carried
out a request as usual takes another one. After anything else it ends.
"""

from __future__ import annotations

import gc
import json
import os
import socket
from collections.abc import Callable
from dataclasses import astuple

from canhazgpu.agent.handler.fresh_process import renew
from canhazgpu.agent.handler.process_state import process_state
from canhazgpu.agent.peer import Peer
from canhazgpu.agent.request import Request, RequestSocket
from canhazgpu.ledger.store.client import disconnect_clients

MAX_REQUESTS = 100
"""Requests of one process: what a library loses in each, it loses for so long."""
TAKES_ANOTHER = b"+"
"""What the handler tells the listener after a request that left nothing behind."""
MAX_BYTES = 128 * 1024
"""Of one message; a longer request gets a handler of its own."""


def encode_for_handler(request: Request) -> bytes:
    """Return the message, which its connection's descriptor goes with. Raises `OSError`."""
    facts = {
        "door": request.arrived_at.value,
        "peer": astuple(request.peer),
        "status": request.status,
        "agent": request.agent,
        "frame_bytes": len(request.frame),
    }
    message = json.dumps(facts).encode() + b"\n" + request.frame + request.rest
    if len(message) > MAX_BYTES:
        raise OSError("the request is too long for one message")
    return message


def receive_for_handler(end: socket.socket, reports: int) -> Request | None:
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
        RequestSocket(facts["door"]),
        Peer(*facts["peer"]),
        facts["status"],
        facts["agent"],
        reports,
    )


def serve_requests(end: socket.socket, reports: int, serve: Callable[[Request], bool]) -> None:
    """Serve the requests that arrive at this end of a pair; `serve` tells if all went as usual.

    It returns after a request that did not, and when the listener wants none taken any more.
    """
    before = process_state()
    for left in reversed(range(MAX_REQUESTS)):
        request = receive_for_handler(end, reports)
        if request is None:
            return
        with request.connection:
            is_routine = serve(request)
        del request
        renew()
        disconnect_clients()
        # What refers to itself goes now, with its descriptors: no later request is to end it.
        gc.collect()
        if not is_routine or process_state() != before or not left:
            return
        try:
            os.write(end.fileno(), TAKES_ANOTHER)
        except OSError:
            return  # the listener has ended
