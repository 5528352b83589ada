"""When the agent is to become another program: what is installed has changed, or somebody asks.

Nothing is executed that was not proven to start, and nothing that is just being written.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from canhazgpu.agent.reexecution.installed_files import Identity
from canhazgpu.agent.reexecution.program import Program, program_of
from canhazgpu.agent.reexecution.trial_start import TrialStart

LOOK_S = 30.0
"""Time between two looks at the installed file: one stat(2) each."""
SETTLING_LOOK_S = 1.0
"""Time between two looks while the installation changes."""
STILL_S = 5.0
"""How long a changed installation has to be left alone before it is tried."""
GONE_S = 30.0
"""The same where the file is missing: it was removed, or will be there soon."""
TELL_AFTER_S = 60.0
"""Until so long after the change a failure is not told: pip may write its last file much later than
the one that is looked at."""
EARLY_RETRY_S = 10.0
"""After what did not start until then is tried again."""
RETRY_S = 300.0
"""After what did not start is tried again, though the file is the same: another one was mended."""
QUIET_WAIT_S = 10.0
"""Longest wait for a moment without requests; those that are under way then go on all the same."""


class Upgrade:
    """Decides it, step by step.

    `look` tells which file is installed, and `running` which it was before this program was loaded.
    `tell` gets why a program is not taken, "" where that is over.
    """

    def __init__(
        self,
        own: Program,
        look: Callable[[], Identity],
        running: Identity,
        trial: TrialStart,
        tell: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._own = own
        self._look = look
        self._trial = trial
        self._tell = tell
        self._clock = clock
        self._running = self._seen = running
        self._next_look = clock() + LOOK_S
        self._still_since = clock()
        self._failed: tuple[Identity, float] | None = None
        """What did not start, and until when it is not tried again."""
        self._asked: Program | None = None
        self._is_trial_asked = False
        self._in_trial: tuple[Program, Identity] | None = None
        self._ready: tuple[Program, Identity] | None = None
        self._ready_at = 0.0

    @property
    def wait_s(self) -> float | None:
        """How long it is until there is something to do, None where a signal will tell."""
        if self._trial.runs:
            return self._trial.left_s or None
        if self._asked:
            return 0.0
        if self._ready:
            return max(self._ready_at + QUIET_WAIT_S - self._clock(), 0.0)
        return max(self._next_look - self._clock(), 0.0)

    def ask(self, python: str) -> None:
        """Have a program taken, changed or not; `python` is another environment's, "" for none."""
        self._ready = None
        is_other = python and python != self._own.python
        self._asked = program_of(python, sys.argv[1:]) if is_other else self._own

    def step(self) -> None:
        """Take what the trial found, look, and start a trial, each where it is time to."""
        self._take_outcome()
        if self._trial.runs:
            return
        if self._asked:
            program, self._asked = self._asked, None
            self._is_trial_asked = True
            self._begin_trial(program)
        elif not self._ready and self._clock() >= self._next_look and self._has_settled():
            self._is_trial_asked = False
            self._begin_trial(self._own)

    def to_execute(self, *, is_quiet: bool) -> Program | None:
        """Return the program that is to be executed now, None for none.

        `is_quiet` is whether no request is under way.
        """
        if not self._ready or self._asked or self._trial.runs:
            return None
        if not is_quiet and self._clock() < self._ready_at + QUIET_WAIT_S:
            return None
        (program, identity), self._ready = self._ready, None
        if self._look() != identity:
            # It changed since: from the beginning.
            self._next_look = self._clock()
            return None
        return program

    def note_failure(self, text: str) -> None:
        """Note that what was to be executed could not be."""
        self._fail(self._look(), text)

    def end(self) -> None:
        """End what was begun."""
        self._trial.end()

    def _has_settled(self) -> bool:
        """Look; return whether the installation is another one, and is left alone."""
        now, seen = self._clock(), self._look()
        self._next_look = now + LOOK_S
        if seen == self._running:
            if self._failed or self._seen != seen:
                self._failed = None
                self._tell("")
            self._seen = seen
            return False
        if seen != self._seen:
            self._seen, self._still_since = seen, now
        if self._failed and self._failed[0] == seen and now < self._failed[1]:
            self._next_look = min(self._next_look, self._failed[1])
            return False
        if now >= self._still_since + (GONE_S if seen is None else STILL_S):
            return True
        self._next_look = now + SETTLING_LOOK_S
        return False

    def _begin_trial(self, program: Program) -> None:
        identity = self._look()
        try:
            self._trial.start(program)
        except OSError as exc:
            self._fail(identity, f"cannot start a process: {exc.strerror}")
            return
        self._in_trial = program, identity

    def _take_outcome(self) -> None:
        if self._in_trial is None or (outcome := self._trial.take()) is None:
            return
        (program, identity), self._in_trial = self._in_trial, None
        if self._look() != identity:
            # What was tried is no more.
            self._next_look = self._clock()
        elif outcome.fault:
            self._fail(identity, f"{program.python}: {outcome.fault}")
        else:
            self._failed = None
            self._tell("")
            self._ready, self._ready_at = (program, identity), self._clock()

    def _fail(self, identity: Identity, text: str) -> None:
        now = self._clock()
        is_early = not self._is_trial_asked and now < self._still_since + TELL_AFTER_S
        self._failed = identity, now + (EARLY_RETRY_S if is_early else RETRY_S)
        self._next_look = now + min(LOOK_S, EARLY_RETRY_S)
        if not is_early:
            self._tell(text)
