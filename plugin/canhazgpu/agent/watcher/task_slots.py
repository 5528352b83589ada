"""The tasks of a duty that are under way: one at a time for each purpose."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from typing import Any, TypeVar

from canhazgpu.agent.watcher.forked_task import ForkedTask, TaskError

T = TypeVar("T")


class TaskSlots:
    """Tasks by purpose; each has what is to be called with its result, or with its failure."""

    def __init__(self) -> None:
        self._tasks: dict[Hashable, tuple[ForkedTask[Any], Callable[[Any], None]]] = {}

    @property
    def is_empty(self) -> bool:
        """Whether no task is under way."""
        return not self._tasks

    def is_busy(self, purpose: Hashable) -> bool:
        """Tell whether a task for this is under way."""
        return purpose in self._tasks

    def start(
        self,
        purpose: Hashable,
        work: Callable[[], T],
        limit_s: float,
        on_end: Callable[[T | TaskError], None],
    ) -> None:
        """Start a task; `on_end` may be called at once, where it cannot be started."""
        try:
            self._tasks[purpose] = ForkedTask(work, limit_s), on_end
        except TaskError as exc:
            on_end(exc)

    def descriptors(self) -> Iterator[int]:
        """Yield what tells that a task has ended."""
        return (task.descriptor for task, _ in self._tasks.values())

    def wait_s(self) -> float | None:
        """Return how long to wait for the descriptors, in seconds; None without a task."""
        return min((task.wait_s for task, _ in self._tasks.values()), default=None)

    def step(self) -> None:
        """Take the results that have come."""
        for purpose, (task, on_end) in list(self._tasks.items()):
            try:
                ended = task.take()
            except TaskError as exc:
                del self._tasks[purpose]
                on_end(exc)
                continue
            if ended is not None:
                del self._tasks[purpose]
                on_end(ended[0])
