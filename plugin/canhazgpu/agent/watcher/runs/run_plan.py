"""What is due for one run, and when; pure.

Times are in seconds since the node's boot, as in the run's record: whoever watches the run after a
watcher that died comes to the same times.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum

from canhazgpu.ledger.local.runs.run_record import RunRecord
from canhazgpu.node.process_id import ProcessId

SIGKILL_DELAY_S = 10.0
"""Time between SIGTERM and SIGKILL, and between two SIGKILLs."""
RELEASE_RETRY_PAUSES_S = (0.1, 0.5, 1.0, 2.0, 5.0)
"""Pauses between the attempts to end a run, the last one again and again."""
SHORT_RUN_S = 1.0
"""A run's processes are not recorded anew before this time: many runs end sooner."""
LOOK_PAUSE_S = 1.0
"""Between two looks for who is left: a run's processes may start and end all the time, and each
look reads all of its user's processes."""
CONFIRM_AFTER_S = 2.0
"""A reservation is missing when two looks, so long apart, do not find it: a grant may be under
way."""


class Phase(Enum):
    """How far a run is."""

    COMMAND = "its command runs"
    ENDING = "its command has ended, and who is left is not known"
    BACKGROUND = "processes are left that its command started"


@dataclass(frozen=True, slots=True)
class Tell:
    """Write this to the run's standard error."""

    text: str


@dataclass(frozen=True, slots=True)
class Signal:
    """Send this signal to all processes of the run."""

    number: signal.Signals


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Record a heartbeat, with the processes unless they are None.

    With `restores` the GPUs are reserved again where the reservation is missing.
    """

    processes: tuple[ProcessId, ...] | None
    restores: bool


@dataclass(slots=True)
class RunPlan:
    """One run. `keeper` is the agent's process, which keeps the reservation while it lives."""

    record: RunRecord
    keeper: ProcessId
    heartbeat_s: float
    now: float
    phase: Phase = Phase.COMMAND
    background: tuple[ProcessId, ...] = ()
    is_lost: bool = False
    _is_missing: bool = False
    _terminated: bool = False
    _kill_at: float = math.inf
    _end_at: float = math.inf
    _looked_at: float = -math.inf
    _failures: int = 0
    _recorded: frozenset[ProcessId] = frozenset()
    _renew_at: float = field(default=math.inf)

    def __post_init__(self) -> None:
        """Find when the first heartbeat is due."""
        self._recorded = frozenset(self.record.claim.processes)
        wait_s = SHORT_RUN_S if self._has_others() else self.heartbeat_s
        self._renew_at = self.now + wait_s

    @property
    def processes(self) -> tuple[ProcessId, ...]:
        """Those by which the reservation lasts."""
        command = (self.record.command,) if self.phase is Phase.COMMAND else ()
        return (*command, *self.background, self.keeper)

    def next_at(self, *, ends: bool = True, renews: bool = True) -> float:
        """Return when something is due without an event, infinite for never.

        Without `ends` or `renews` such work is under way already, and waits for its end.
        """
        ends_at = self.record.ends_at_uptime_s
        return min(
            math.inf if ends_at is None or self._terminated else ends_at,
            self._kill_at,
            self._end_at if ends else math.inf,
            self._renew_at if renews else math.inf,
        )

    def actions(self, now: float) -> Iterator[Tell | Signal]:
        """Yield what is due by the run's time, and what becomes of a run that is ended."""
        ends_at = self.record.ends_at_uptime_s
        if ends_at is not None and now >= ends_at and not self._terminated:
            yield Tell(f"the run's time of {self.record.timeout_s:g} s is over; ending it")
            yield self._terminate(now)
        if now >= self._kill_at:
            self._kill_at = now + SIGKILL_DELAY_S
            yield Signal(signal.SIGKILL)

    def heartbeat(self, now: float) -> Heartbeat | None:
        """Return the heartbeat that is due; its outcome is told by `renewed` and its like."""
        if now < self._renew_at or self.is_lost:
            return None
        self._renew_at = now + self.heartbeat_s
        return Heartbeat(self.processes if self._has_others() else None, self._is_missing)

    def renewed(self, sent: Heartbeat) -> None:
        """Note that the reservation stands."""
        self._is_missing = False
        if sent.processes is not None:
            self._recorded = frozenset(sent.processes)

    def missed(self, now: float) -> None:
        """Note that the reservation is not there."""
        self._is_missing = True
        self._renew_at = now + CONFIRM_AFTER_S

    def lost(self, reason: str, now: float) -> Iterator[Tell | Signal]:
        """Note that the reservation is lost for good; yield what is due."""
        self.is_lost = True
        self._renew_at = math.inf
        yield Tell(f"the reservation is lost: {reason}")
        if self.record.ends_when_lost and not self._terminated:
            yield self._terminate(now)

    def ended(self, now: float) -> None:
        """Note that the command, or a process that it left, has ended."""
        self.phase = Phase.ENDING
        self._end_at = max(now, self._looked_at + LOOK_PAUSE_S)

    def is_end_due(self, now: float) -> bool:
        """Tell whether it is to be found out who is left, and released if nobody is."""
        if now < self._end_at:
            return False
        self._end_at = math.inf
        return True

    def left(self, processes: Sequence[ProcessId], now: float) -> None:
        """Note the processes that are left."""
        self.phase = Phase.BACKGROUND
        self._failures = 0
        self._looked_at = now
        self.background = tuple(processes)
        if self._has_others():
            self._renew_at = min(self._renew_at, now)

    def end_failed(self, now: float) -> None:
        """Note that it was not found out who is left, or that the release failed."""
        pause = RELEASE_RETRY_PAUSES_S[min(self._failures, len(RELEASE_RETRY_PAUSES_S) - 1)]
        self._failures += 1
        self._end_at = now + pause

    def _has_others(self) -> bool:
        """Tell whether others are recorded; they stay while it is not known who is left."""
        if self.is_lost or self.phase is Phase.ENDING:
            return False
        return self._recorded != frozenset(self.processes)

    def _terminate(self, now: float) -> Signal:
        self._terminated = True
        self._kill_at = now + SIGKILL_DELAY_S
        return Signal(signal.SIGTERM)
