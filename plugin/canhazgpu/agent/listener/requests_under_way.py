"""Requests that are under way while the agent becomes another program."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator

from canhazgpu.agent.callers.admitted_user import AdmittedUsers
from canhazgpu.agent.listener.children import Child, Children
from canhazgpu.agent.listener.connections import REQUEST_WAIT_S, Connection, Connections
from canhazgpu.agent.peer import UnknownPeerError, overflow_uid, peer_of
from canhazgpu.agent.reexecution.inherited_state import (
    InheritedChild,
    InheritedConnection,
    InheritedState,
)
from canhazgpu.agent.request import RequestSocket


def children_to_pass_on(children: Children) -> tuple[InheritedChild, ...]:
    """Return the handlers."""
    return tuple(
        InheritedChild(
            one.pid, one.arrived_at.value, one.user, one.what, one.ends_at, one.is_killed
        )
        for one in children.all()
    )


def connections_to_pass_on(connections: Connections) -> tuple[InheritedConnection, ...]:
    """Return the connections whose request has not arrived as a whole."""
    return tuple(
        InheritedConnection(one.socket.fileno(), one.arrived_at.value, one.inbox.rest.hex())
        for one in connections.all()
    )


def adopted_children(handed: InheritedState) -> Iterator[Child]:
    """Yield the handlers that were handed on."""
    for one in handed.children:
        # A socket that this release does not have.
        with contextlib.suppress(ValueError):
            arrived_at = RequestSocket(one.door)
            yield Child(one.pid, arrived_at, one.user, one.what, one.ends_at, one.is_killed)


def adopted_connections(
    handed: InheritedState, users: AdmittedUsers
) -> Iterator[tuple[Connection, bytes]]:
    """Yield the connections, each with what was read of it; the kernel says anew who it is."""
    overflow, ends_at = overflow_uid(), time.monotonic() + REQUEST_WAIT_S
    for one in handed.connections:
        connected = socket.socket(fileno=one.descriptor)
        try:
            arrived_at, peer = RequestSocket(one.door), peer_of(connected, overflow)
            received = bytes.fromhex(one.received)
        except (ValueError, UnknownPeerError):
            connected.close()
            continue
        yield Connection(connected, arrived_at, peer, users.of(peer.uid), ends_at), received
