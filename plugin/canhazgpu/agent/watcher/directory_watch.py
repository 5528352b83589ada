"""See that files of a directory have changed (inotify(7))."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from pathlib import Path

IN_CLOSE_WRITE, IN_MOVED_TO, IN_DELETE = 0x8, 0x80, 0x200
EVENTS_BYTES = 4096


class DirectoryWatch:
    """The `descriptor` becomes readable when a file was written, put in place or removed.

    It is None where the kernel gives none, or there is no directory; then changes are not seen.
    """

    def __init__(self, directory: Path, *, removals: bool = False) -> None:
        events = IN_CLOSE_WRITE | IN_MOVED_TO | (IN_DELETE if removals else 0)
        self.descriptor = _watch(directory, events)

    def forget_events(self) -> None:
        """Read the events, whatever they are: the files themselves are looked at."""
        if self.descriptor is not None:
            with suppress(BlockingIOError):
                while os.read(self.descriptor, EVENTS_BYTES):
                    pass

    def close(self) -> None:
        """Close the descriptor."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None


def _watch(directory: Path, events: int) -> int | None:
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if descriptor < 0:
        return None
    if libc.inotify_add_watch(descriptor, os.fsencode(directory), events) < 0:
        os.close(descriptor)
        return None
    return int(descriptor)
