"""Connections of redis-py that wait for the store by a `WaitBudget`.

redis-py's own time-outs go by the clock: they count the time for which this process had no CPU, and
do not look again whether the answer has come. They stay as they are for what is rare: the rest of
an answer that came in part.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import redis
from redis.utils import HIREDIS_AVAILABLE

from canhazgpu.errors import StoreError
from canhazgpu.ledger.wait_budget import WaitBudget


class CommandPacker:
    """Packs commands as redis-py does where `hiredis` is not installed, several times as fast.

    Whoever asks for all nodes sends ten thousand of them. `encode` is redis-py's, for what is
    neither text nor bytes.
    """

    def __init__(self, encode: Callable[[Any], bytes]) -> None:
        self._encode = encode

    def pack(self, *command: Any) -> list[bytes]:
        """Return the command in pieces: one."""
        # A name may be several words: "SCRIPT LOAD".
        words = [*command[0].split(), *command[1:]]
        pieces = [b"*%d\r\n" % len(words)]
        for word in words:
            kind = type(word)
            data = word.encode("utf-8", "replace") if kind is str else word
            if kind is not str and kind is not bytes:
                data = self._encode(word)
            pieces.append(b"$%d\r\n%b\r\n" % (len(data), data))
        return [b"".join(pieces)]


class _BudgetedWaits:
    """Mixed into a connection class of redis-py, before it."""

    def __init__(
        self: Any, *given: Any, wait_budget: WaitBudget, timeout_s: float, **named: Any
    ) -> None:
        self.wait_budget = wait_budget
        self.timeout_s = timeout_s
        super().__init__(*given, **named)
        if not HIREDIS_AVAILABLE:
            self._command_packer = CommandPacker(self.encoder.encode)

    def _connect(self: Any) -> Any:
        # redis-py 5.0 forgets the limits of a Unix socket.
        usual = (
            self.socket_connect_timeout or self.timeout_s,
            self.socket_timeout or self.timeout_s,
        )
        connect = super()._connect  # type: ignore[misc]

        def within(limit_s: float) -> Any:
            # The second is the limit of a TLS handshake.
            self.socket_connect_timeout = self.socket_timeout = limit_s
            return connect()

        try:
            made = self.wait_budget.attempt(within, usual[0])
        finally:
            self.socket_connect_timeout, self.socket_timeout = usual
        made.settimeout(usual[1])
        return made

    def send_packed_command(self: Any, *given: Any, **named: Any) -> Any:
        if self._sock is None:
            self.connect()
        limit_s = min(self.socket_timeout, self.wait_budget.left_s)
        self._sock.settimeout(limit_s)
        try:
            return super().send_packed_command(*given, **named)  # type: ignore[misc]
        except redis.TimeoutError as exc:
            if limit_s < self.socket_timeout:
                raise StoreError(
                    "the store took too long",
                    next_step="'canhazgpu hooks check' measures its answers",
                ) from exc
            raise
        finally:
            if self._sock is not None:
                self._sock.settimeout(self.socket_timeout)

    def read_response(self: Any, *given: Any, **named: Any) -> Any:
        try:
            self.wait_budget.await_answer(self.can_read, self.socket_timeout)
        except TimeoutError as exc:
            self.disconnect()
            raise redis.TimeoutError(f"Timeout reading from {self}") from exc
        except StoreError:
            # The answer may still come, and is not the next request's.
            self.disconnect()
            raise
        return super().read_response(*given, **named)  # type: ignore[misc]


@cache
def budgeted(connection_class: type) -> type:
    """Return the class whose connections wait by a budget.

    They take `wait_budget` and `timeout_s` (the limit of one wait, in seconds) besides the class's
    own arguments.
    """
    return type(f"Budgeted{connection_class.__name__}", (_BudgetedWaits, connection_class), {})
