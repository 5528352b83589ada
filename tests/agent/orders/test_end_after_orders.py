"""An order reader that is told to end finishes the order that it carries out."""

from __future__ import annotations

import os
import signal

from canhazgpu.agent.orders.order_reader import EndAfterOrders

NOT_ENDED = 3


def outcome(*, is_carried_out: bool) -> tuple[bytes, int]:
    """What a process does that gets SIGTERM in the middle of an order, or between two."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        end = EndAfterOrders()
        if is_carried_out:
            with end.put_off():
                os.kill(os.getpid(), signal.SIGTERM)
                os.write(write, b"done")
        else:
            os.kill(os.getpid(), signal.SIGTERM)
            os.write(write, b"done")
        os._exit(NOT_ENDED)
    os.close(write)
    _, status = os.waitpid(pid, 0)
    with os.fdopen(read, "rb") as stream:
        return stream.read(), os.waitstatus_to_exitcode(status)


def test_an_order_is_carried_out_to_its_end() -> None:
    assert outcome(is_carried_out=True) == (b"done", 0)


def test_between_orders_it_ends_at_once() -> None:
    assert outcome(is_carried_out=False) == (b"", 0)
