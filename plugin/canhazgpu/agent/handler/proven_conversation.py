"""The messages with a process that must itself confirm: not one that was given its connection.

A connection can outlive the process that made it, in a child or in whatever it was passed to. So
`Confirm` has to repeat a number that is new, and the kernel has to name its sender
(SCM_CREDENTIALS, unix(7)): the process that connected, and nobody who has its number since.
"""

from __future__ import annotations

import secrets
import socket
import struct
from typing import Any

from canhazgpu.agent.handler.conversation import Conversation
from canhazgpu.agent.request import Request
from canhazgpu.agent.wire.interface import Call

_CREDENTIALS = struct.Struct("iII")


class ProvenConversation(Conversation):
    """`Conversation` whose Confirm comes from the very process that connected."""

    def __init__(self, request: Request, method: str) -> None:
        self._nonce = secrets.token_hex(16)
        request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        super().__init__(request, method)

    @property
    def pidfd(self) -> int | None:
        """The descriptor of the process; None if it has ended."""
        return self._peer

    def _ready_parameters(self) -> dict[str, Any]:
        return {**super()._ready_parameters(), "nonce": self._nonce}

    def _received(self) -> bytes:
        chunk, ancillary, _, _ = self._request.connection.recvmsg(
            4096, socket.CMSG_SPACE(_CREDENTIALS.size)
        )
        if chunk and not any(self._is_of_peer(*one) for one in ancillary):
            raise ConnectionAbortedError("another process confirms than the one that connected")
        return chunk

    def _is_of_peer(self, level: int, kind: int, content: bytes) -> bool:
        if (level, kind) != (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
            return False
        if len(content) != _CREDENTIALS.size:
            return False
        pid, uid, _ = _CREDENTIALS.unpack(content)
        peer = self._request.peer
        return bool((pid, uid) == (peer.pid, peer.uid))

    def _is_confirm(self, call: Call) -> bool:
        return super()._is_confirm(call) and self._is_nonce(call)

    def _is_nonce(self, call: Call) -> bool:
        return bool(call.parameters.get("nonce") == self._nonce)
