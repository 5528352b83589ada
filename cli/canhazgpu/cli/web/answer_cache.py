"""Answers about the history, kept for all viewers: each is read once, few at the same time.

Where an answer cannot be had any more, because whoever knows it is away, the last one stays.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from canhazgpu.errors import AgentError, CanhazgpuError, StoreError, UnavailableError, error_text

T = TypeVar("T")
MAX_ANSWERS = 256
MAX_READS = 2
"""At the same time, of all viewers."""
MAX_AWAITED = 32
"""Answers that are read, or whose turn to be read comes; who asks for more is refused."""
PAGE_WAIT_S = 5.0
"""How long a page waits for an answer."""
MAX_WAIT_S = 300.0
"""How long a program waits, which would not ask again."""
SHARE_OF_TIME = 10.0
"""An answer that took one second to read is kept for at least so many seconds."""


AWAY = (StoreError, AgentError, UnavailableError)
"""Errors that say nothing about what was asked for."""


class StillReadError(CanhazgpuError):
    """The answer is being read, which takes long; look again."""


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """What was read, at `read_at` in seconds since the epoch.

    `fault` says why there is no newer one, "" where it is the present one.
    """

    value: T
    read_at: float
    fault: str = ""


@dataclass(frozen=True, slots=True)
class _Kept(Generic[T]):
    until: float
    answer: Answer[T] | None
    error: Exception | None = None


@dataclass
class AnswerCache(Generic[T]):
    """Keeps answers, and errors, for `keep_s` seconds by the monotonic `clock`.

    Each is read in a thread of its own, so that nobody has to wait for its end.
    """

    keep_s: float
    clock: Callable[[], float] = time.monotonic
    _kept: OrderedDict[Hashable, _Kept[T]] = field(default_factory=OrderedDict)
    _awaited: dict[Hashable, threading.Thread] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _reads: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(MAX_READS))

    def get(self, key: Hashable, read: Callable[[], T], wait_s: float = PAGE_WAIT_S) -> Answer[T]:
        """Return what is kept for the key, else what `read` returns or raises.

        Where that is one of `AWAY`, or too many others are waited for, the last answer is returned;
        it raises the error where there is none. After `wait_s` the last one is returned, too, and
        without one it raises `StillReadError`.
        """
        found = self._find(key)
        if found is None:
            thread = self._begin(key, read)
            if thread is None:
                return self._last(key, "too many questions at once: try again in a moment")
            thread.join(wait_s)
            found = self._kept.get(key)
            if found is None or (found.answer is None and thread.is_alive()):
                raise StillReadError(
                    "this is read just now, which takes a moment: this page loads itself again"
                )
        if found.answer is None:
            assert found.error is not None  # noqa: S101 - for the types
            raise found.error
        return found.answer

    def _begin(self, key: Hashable, read: Callable[[], T]) -> threading.Thread | None:
        """Have it read, if it is not yet; None where too many others are."""
        with self._lock:
            thread = self._awaited.get(key)
            if thread is None and len(self._awaited) < MAX_AWAITED:
                thread = threading.Thread(target=self._await, args=(key, read), daemon=True)
                self._awaited[key] = thread
                thread.start()
            return thread

    def _await(self, key: Hashable, read: Callable[[], T]) -> None:
        with self._reads:
            kept = self._read(key, read)
        with self._lock:
            self._kept[key] = kept
            self._kept.move_to_end(key)
            while len(self._kept) > MAX_ANSWERS:
                self._kept.popitem(last=False)
            del self._awaited[key]

    def knows(self, key: Hashable) -> bool:
        """Return whether there is an answer, however old."""
        with self._lock:
            found = self._kept.get(key)
        return found is not None and found.answer is not None

    def _last(self, key: Hashable, why: str) -> Answer[T]:
        with self._lock:
            found = self._kept.get(key)
        if found is None or found.answer is None:
            raise UnavailableError(why)
        return replace(found.answer, fault=why)

    def _find(self, key: Hashable) -> _Kept[T] | None:
        with self._lock:
            found = self._kept.get(key)
            return found if found is not None and found.until > self.clock() else None

    def _read(self, key: Hashable, read: Callable[[], T]) -> _Kept[T]:
        began = self.clock()
        try:
            answer = Answer(read(), time.time())
        except AWAY as exc:
            try:
                last = self._last(key, error_text(exc))
            except UnavailableError:
                last = None
            # It took its time by waiting.
            kept = _Kept(self.clock() + self.keep_s, last, exc.with_traceback(None))
        except Exception as exc:  # whatever it is, who asks gets it
            kept = _Kept(self.clock() + self.keep_s, None, exc.with_traceback(None))
        else:
            now = self.clock()
            kept = _Kept(now + max(self.keep_s, SHARE_OF_TIME * (now - began)), answer)
        return kept
