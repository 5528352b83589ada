"""Answers about the history, kept for all viewers: each is read once, few at the same time."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from canhazgpu.errors import CanhazgpuError, UnavailableError

T = TypeVar("T")
MAX_ANSWERS = 256
MAX_READS = 2
"""At the same time, of all viewers."""
MAX_WAIT_S = 20.0
SHARE_OF_TIME = 10.0
"""An answer that took one second to read is kept for at least so many seconds."""


@dataclass(frozen=True, slots=True)
class _Kept(Generic[T]):
    until: float
    value: T | None
    error: CanhazgpuError | None


@dataclass
class AnswerCache(Generic[T]):
    """Keeps answers, and errors, for `keep_s` seconds by the monotonic `clock`."""

    keep_s: float
    clock: Callable[[], float] = time.monotonic
    _kept: OrderedDict[Hashable, _Kept[T]] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _reads: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(MAX_READS))

    def get(self, key: Hashable, read: Callable[[], T]) -> T:
        """Return what is kept for the key, else what `read` returns or raises.

        Raises `UnavailableError` where too many others are waited for.
        """
        found = self._find(key)
        if found is None:
            if not self._reads.acquire(timeout=MAX_WAIT_S):
                raise UnavailableError("too many questions at once: try again in a moment")
            try:
                found = self._find(key) or self._read(key, read)
            finally:
                self._reads.release()
        if found.error is not None:
            raise found.error
        return found.value  # type: ignore[return-value]

    def _find(self, key: Hashable) -> _Kept[T] | None:
        with self._lock:
            found = self._kept.get(key)
            return found if found is not None and found.until > self.clock() else None

    def _read(self, key: Hashable, read: Callable[[], T]) -> _Kept[T]:
        began = self.clock()
        value, error = None, None
        try:
            value = read()
        except CanhazgpuError as exc:
            error = exc.with_traceback(None)
        now = self.clock()
        found = _Kept(now + max(self.keep_s, SHARE_OF_TIME * (now - began)), value, error)
        with self._lock:
            self._kept[key] = found
            self._kept.move_to_end(key)
            while len(self._kept) > MAX_ANSWERS:
                self._kept.popitem(last=False)
        return found
