"""Which reader scans for which requests, and when a reader has to end; pure.

A request's scan begins after the request: one that comes while a reader scans waits for the next
scan, and shares it with all that wait for the same. It does not wait long: a reader that takes its
time may hang, and then a second one is started beside it. Times are seconds of one monotonic clock.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from canhazgpu.agent.scanner.messages import ReadSettings

WAIT_SHARE = 0.25
"""Share of a request's time for which it waits for the end of another's scan."""
MAX_BUSY_READERS = 4
MAX_STUCK_READERS = 16
"""Readers that were killed and have not ended: a driver in which so many hang answers no other."""
END_GRACE_S = 1.0
"""Time for a reader to let go of the driver by itself."""


@dataclass(frozen=True, slots=True)
class Start:
    """Start a new reader, and order it to scan."""

    reader: int
    settings: ReadSettings


@dataclass(frozen=True, slots=True)
class Order:
    """Order an idle reader to scan."""

    reader: int


@dataclass(frozen=True, slots=True)
class End:
    """Tell an idle reader to end."""

    reader: int


@dataclass(frozen=True, slots=True)
class Kill:
    """Kill a reader."""

    reader: int


@dataclass(frozen=True, slots=True)
class Deliver:
    """Answer a request with the scan."""

    request: int
    scan: bytes


@dataclass(frozen=True, slots=True)
class Fail:
    """Answer a request with the reason why there is no scan."""

    request: int
    reason: str


Action = Start | Order | End | Kill | Deliver | Fail


class _Phase(Enum):
    BUSY = "busy"
    IDLE = "idle"
    ENDING = "ending"
    KILLED = "killed"


@dataclass(slots=True)
class _Waiter:
    request: int
    settings: ReadSettings
    received: float
    deadline: float

    @property
    def impatient_at(self) -> float:
        return self.received + WAIT_SHARE * (self.deadline - self.received)

    def timed_out(self) -> Fail:
        # Rounded to what the hook allowed: the request took a part of it to come here.
        allowed_s = max(round(self.deadline - self.received, 1), 0.1)
        return Fail(self.request, f"no answer within {allowed_s:g} s")


@dataclass(slots=True)
class _Reader:
    """`until` is when a busy or ending reader is killed, and when an idle one is told to end."""

    settings: ReadSettings
    batch: list[_Waiter]
    until: float
    phase: _Phase = _Phase.BUSY
    is_new: bool = True
    retires: bool = False


class Schedule:
    """The requests that wait and the readers; each event is followed by `actions`."""

    def __init__(self, idle_s: float) -> None:
        self._idle_s = idle_s
        self._waiting: list[_Waiter] = []
        self._readers: dict[int, _Reader] = {}
        self._started = 0
        self._due: list[Action] = []

    @property
    def readers(self) -> frozenset[int]:
        """The readers that have not ended."""
        return frozenset(self._readers)

    def request(self, request: int, settings: ReadSettings, deadline: float, now: float) -> None:
        """Take in a request."""
        self._waiting.append(_Waiter(request, settings, now, deadline))

    def drop(self, request: int) -> None:
        """Who asked is gone. A scan that was ordered for it goes on."""
        self._waiting = [one for one in self._waiting if one.request != request]
        for reader in self._readers.values():
            reader.batch = [one for one in reader.batch if one.request != request]

    def scanned(self, reader: int, scan: bytes, now: float, *, stays: bool) -> None:
        """Take in a reader's scan; it waits for the next order if it `stays`."""
        one = self._readers[reader]
        if one.phase is not _Phase.BUSY:
            return  # too late: it was killed
        self._due += [Deliver(waiter.request, scan) for waiter in one.batch]
        one.batch, one.is_new = [], False
        if not stays:
            self._set_ending(one, now)
        elif one.retires or any(other.settings == one.settings for other in self._idle()):
            self._end(reader, now)
        else:
            one.phase, one.until = _Phase.IDLE, now + self._idle_s

    def found_stale(self, reader: int, now: float) -> None:
        """Take in that a reader ends without a scan: its driver is no longer what it was."""
        one = self._readers[reader]
        if one.phase is not _Phase.BUSY:
            return
        self._waiting += one.batch
        one.batch = []
        self._set_ending(one, now)
        self._end_idle(now, one.settings)

    def ended(self, reader: int, how: str) -> None:
        """Take in the end of a reader's process; a new one that failed shows what any would."""
        one = self._readers.pop(reader)
        if one.is_new:
            self._due += [Fail(waiter.request, how) for waiter in one.batch]
        else:
            self._waiting += one.batch

    def release(self, now: float) -> None:
        """No reader keeps the driver after the scan that it does."""
        self._end_idle(now)
        for one in self._readers.values():
            one.retires = True

    def actions(self, now: float) -> list[Action]:
        """Return what is to be done now."""
        self._fail_late(now)
        self._assign(now)
        for number, one in self._readers.items():
            if one.phase is _Phase.IDLE and one.until <= now:
                self._end(number, now)
            elif one.phase in (_Phase.BUSY, _Phase.ENDING) and one.until <= now:
                one.phase = _Phase.KILLED
                self._due.append(Kill(number))
        due, self._due = self._due, []
        return due

    def next_time(self) -> float | None:
        """Return when `actions` is to be asked again without an event, None for never."""
        times = [one.until for one in self._readers.values() if one.phase is not _Phase.KILLED]
        times += [waiter.deadline for one in self._readers.values() for waiter in one.batch]
        times += [min(one.deadline, one.impatient_at) for one in self._waiting]
        return min(times, default=None)

    def _idle(self) -> Iterator[_Reader]:
        return (one for one in self._readers.values() if one.phase is _Phase.IDLE)

    def _end_idle(self, now: float, settings: ReadSettings | None = None) -> None:
        for number, one in self._readers.items():
            if one.phase is _Phase.IDLE and settings in (None, one.settings):
                self._end(number, now)

    def _end(self, reader: int, now: float) -> None:
        self._set_ending(self._readers[reader], now)
        self._due.append(End(reader))

    def _set_ending(self, reader: _Reader, now: float) -> None:
        reader.phase, reader.until = _Phase.ENDING, now + END_GRACE_S

    def _fail_late(self, now: float) -> None:
        self._due += [one.timed_out() for one in self._waiting if one.deadline <= now]
        self._waiting = [one for one in self._waiting if one.deadline > now]
        for reader in self._readers.values():
            self._due += [one.timed_out() for one in reader.batch if one.deadline <= now]
            reader.batch = [one for one in reader.batch if one.deadline > now]

    def _assign(self, now: float) -> None:
        for settings in dict.fromkeys(one.settings for one in self._waiting):
            batch = [one for one in self._waiting if one.settings == settings]
            if self._assigned(settings, batch, now):
                self._waiting = [one for one in self._waiting if one.settings != settings]

    def _assigned(self, settings: ReadSettings, batch: list[_Waiter], now: float) -> bool:
        """Give a batch to a reader, or refuse it; returns False where it goes on waiting."""
        own = {number: one for number, one in self._readers.items() if one.settings == settings}
        for number, one in own.items():
            if one.phase is _Phase.IDLE:
                self._give(one, batch)
                self._due.append(Order(number))
                return True
        phases = [one.phase for one in self._readers.values()]
        scanning = any(one.phase is _Phase.BUSY for one in own.values())
        if scanning and all(now < one.impatient_at for one in batch):
            return False
        if phases.count(_Phase.KILLED) >= MAX_STUCK_READERS:
            reason = f"{phases.count(_Phase.KILLED)} earlier scans hang and cannot be ended"
            self._due += [Fail(one.request, reason) for one in batch]
            return True
        if phases.count(_Phase.BUSY) >= MAX_BUSY_READERS:
            return False
        self._started += 1
        self._readers[self._started] = reader = _Reader(settings, [], now)
        self._give(reader, batch)
        self._due.append(Start(self._started, settings))
        return True

    def _give(self, reader: _Reader, batch: list[_Waiter]) -> None:
        reader.phase, reader.batch = _Phase.BUSY, list(batch)
        reader.until = max(one.deadline for one in batch)
