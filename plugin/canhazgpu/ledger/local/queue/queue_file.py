"""The node's own queue: a file in the state directory, under a lock of its own.

It says whose turn it is on a node whose book decides. It is not part of the book: hooks write the
book, and do not read the queue. A reader takes no lock: the file is replaced as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from canhazgpu.errors import LimitError, NodeStateError
from canhazgpu.ledger.local.queue.queued_request import (
    Entries,
    QueuedRequest,
    entries_in_force,
    position_of,
    queue_from_bytes,
    queue_to_bytes,
    with_entry,
    without_owners,
)
from canhazgpu.ledger.values import RECORD_ERRORS
from canhazgpu.logfmt import log_line
from canhazgpu.node.boot_clock import uptime_s
from canhazgpu.node.state_files import file_lock, make_directory, read_if_owned, write_atomically

QUEUE_FILE = "queue.json"
"""The file's name in the node's state directory; only root reads it."""


class QueueFile:
    """The queue of one node; every method raises `NodeStateError`.

    A file that is no queue is logged and counts as empty: whoever waits joins again, and nobody
    loses a GPU by it.
    """

    def __init__(
        self,
        state_dir: Path,
        node: str,
        boot_id: str | None,
        log: Callable[[str], None],
        clock: Callable[[], float] = uptime_s,
    ) -> None:
        """Take the node; `log` gets a line for the administrator if the file cannot be read.

        `clock` returns the node's uptime in seconds.
        """
        self._path = state_dir / QUEUE_FILE
        self._lock = state_dir / ".queue.lock"
        self._node = node
        self._boot_id = boot_id
        self._log = log
        self._clock = clock

    def entries(self) -> Entries:
        """Return the queue; without those of an earlier boot, and those whose time is over."""
        with self._translated():
            return self._read()

    def join(
        self, entry: QueuedRequest, refusal: Callable[[Entries], str] = lambda others: ""
    ) -> int:
        """Enter it at the end, or in its owner's place; return the position, from 1.

        `refusal` tells under the lock why a new one may not join these, "" where it may. Raises
        `LimitError` then.
        """

        def joined_by(entries: Entries) -> Entries:
            is_new = all(one.owner != entry.owner for one in entries)
            if is_new and (why := refusal(entries)):
                raise LimitError(why)
            return with_entry(entries, entry)

        return position_of(self._change(joined_by), entry.owner)

    def leave(self, owners: Sequence[str]) -> list[QueuedRequest]:
        """Remove these owners; return those that were in the queue."""
        left: list[QueuedRequest] = []

        def without(entries: Entries) -> Entries:
            left.extend(one for one in entries if one.owner in owners)
            return without_owners(entries, owners)

        self._change(without)
        return left

    def move_to_end(self, owner: str) -> None:
        """Let all others pass; it is no error if the owner is not in the queue."""
        self._change(
            lambda entries: (
                *without_owners(entries, [owner]),
                *(one for one in entries if one.owner == owner),
            )
        )

    def _change(self, change: Callable[[Entries], Entries]) -> Entries:
        """Return the queue after the change, which is written if there is one."""
        with self._translated():
            make_directory(self._path.parent)
            with file_lock(self._lock):
                before = self._read()
                after = change(before)
                if after != before:
                    content = queue_to_bytes(after, self._node, self._boot_id)
                    write_atomically(self._path, content)
        return after

    def _read(self) -> Entries:
        content = read_if_owned(self._path)
        if content is None:
            return ()
        try:
            entries = queue_from_bytes(content, self._node, self._boot_id)
        except (*RECORD_ERRORS, AttributeError) as exc:
            self._log(log_line("queue-unreadable", node=self._node, reason=str(exc)))
            return ()
        return entries_in_force(entries, self._clock(), self._boot_id)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            why = exc.strerror or str(exc)
            raise NodeStateError(f"cannot keep the node's queue {self._path}: {why}") from exc
