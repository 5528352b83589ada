"""Work of the watcher that may take long or hang: a forked child does it, within a time.

So a store that is silent, a driver or a user's process that hangs keep the watcher from nothing.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Generic, TypeVar

from canhazgpu.errors import CanhazgpuError, error_text, internal_error_text
from canhazgpu.probe.bounded_child import BoundedChild, BoundedChildError

T = TypeVar("T")


class TaskError(Exception):
    """The work failed, or did not end in its time; the text says why."""


class ForkedTask(Generic[T]):
    """A child that computes `work()` within `limit_s` seconds. Raises `TaskError`.

    It has none of this process's descriptors, and dies with it.
    """

    def __init__(self, work: Callable[[], T], limit_s: float) -> None:
        try:
            self._child = BoundedChild(lambda: _outcome(work), limit_s)
        except BoundedChildError as exc:
            raise TaskError(str(exc)) from exc

    @property
    def descriptor(self) -> int:
        """What becomes readable when the work is done."""
        return self._child.descriptor

    @property
    def wait_s(self) -> float:
        """How long to wait for the descriptor, in seconds: then its time is over."""
        return self._child.left_s

    def take(self) -> tuple[T] | None:
        """Return the result once there is one, and None before that; raises `TaskError`."""
        try:
            content = self._child.take()
        except BoundedChildError as exc:
            raise TaskError(str(exc)) from exc
        if content is None:
            return None
        # It comes from a child of this process, which runs the same program.
        failure, result = pickle.loads(content)  # noqa: S301
        if failure:
            raise TaskError(failure)
        return (result,)


def _outcome(work: Callable[[], T]) -> bytes:
    try:
        return pickle.dumps(("", work()))
    except CanhazgpuError as exc:
        return pickle.dumps((error_text(exc), None))
    except Exception as exc:
        # Whatever a server that is none of ours has answered.
        return pickle.dumps((internal_error_text(exc), None))
