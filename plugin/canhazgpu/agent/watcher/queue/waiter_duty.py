"""Look after all who wait for GPUs of a node: their turn, their connections, their time.

The queue is checked once for all of them: when something was released, and now and again, because
the end of an owner or of use without reservation is no event. A check is made in a child, and only
this process writes to the clients: a grant of which nothing was heard is found again by the next
check, or released.
"""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Iterator, Mapping, Set
from functools import partial

from canhazgpu.agent.watcher.forked_task import TaskError
from canhazgpu.agent.watcher.queue.held_gpus import HeldGpus
from canhazgpu.agent.watcher.queue.queue_task import (
    Answered,
    Checked,
    QueuePorts,
    Wait,
    check_queue,
    leave_queue,
)
from canhazgpu.agent.watcher.queue.waiter_answers import OpenAnswers
from canhazgpu.agent.watcher.queue.waiting_clients import (
    HandingOver,
    WaitingClient,
    may_hand_over,
)
from canhazgpu.agent.watcher.task_slots import TaskSlots
from canhazgpu.allocation.queue_decision import WaitState
from canhazgpu.allocation.queue_wait import without_ledger_text
from canhazgpu.errors import LimitError
from canhazgpu.in_process.grants.refused_requests import note_refused
from canhazgpu.in_process.watching.waiting_request import WaitingRequest
from canhazgpu.ledger.local.runs.run_files import RunFiles
from canhazgpu.ledger.user_limits import too_many_waiters
from canhazgpu.node.boot_clock import uptime_s
from canhazgpu.node.identity import boot_id, pid_namespace

CHECK_INTERVAL_S = 1.0
"""Time between two checks while a scan may change something."""
CALM_CHECK_INTERVAL_S = 5.0
"""Time between two checks while GPUs have to be released first, which wakes the watcher."""
TASK_LIMIT_S = 60.0
"""Longest time of one check: that of its scans, and of a store that is slow."""
MAX_HANDED_AT_ONCE = 64
"""Hand-overs that are under way; more wait in the socket's queue."""
REST_S = 0.2
"""How long nobody is accepted where that failed."""
QUEUE = "queue"
"""The purpose of the tasks: what uses the queue is done one after the other."""


class _Waiter:
    """One who waits, with its client. `may_hold`: a check of it ended without an outcome."""

    def __init__(self, wait: Wait, client: WaitingClient) -> None:
        self.wait = wait
        self.client = client
        self.may_hold = False
        self._shown = ""

    @property
    def owner(self) -> str:
        return self.wait.waiting.owner

    @property
    def ends_at(self) -> float:
        """When it gives up, in seconds since the node's boot; infinite for never."""
        ends_at = self.wait.waiting.ends_at_uptime_s
        return math.inf if ends_at is None else ends_at

    def show(self, text: str, steady: str) -> bool:
        """Tell the client what is new of its wait; return False if it does not read it."""
        if text == self._shown:
            return True
        self._shown = text
        return self.client.write(self.wait.answers.progress(text, steady))


class WaiterDuty:
    """All waiters of a node; see `Duty`. `listening` is the socket where handlers bring them."""

    def __init__(
        self,
        node: str,
        listening: socket.socket,
        held: HeldGpus,
        files: RunFiles,
        ports: QueuePorts,
        open_answers: OpenAnswers,
    ) -> None:
        self._node = node
        self._listening = listening
        self._held = held
        self._files = files
        self._ports = ports
        self._open_answers = open_answers
        self._waiters: dict[str, _Waiter] = {}
        self._handing: list[HandingOver] = []
        # By owner whether it may hold GPUs that it was not told of.
        self._leaving: dict[str, bool] = {}
        self._tasks = TaskSlots()
        self._next_at = math.inf
        self._skips_leaving = False
        self._rests_until = 0.0

    @property
    def is_done(self) -> bool:
        """See `Duty`."""
        return not (self._waiters or self._handing or self._leaving) and self._tasks.is_empty

    def descriptors(self) -> Iterator[int]:
        """See `Duty`."""
        if self._accepts:
            yield self._listening.fileno()
        yield from (one.descriptor for one in self._handing)
        yield from self._tasks.descriptors()
        for waiter in self._waiters.values():
            yield from waiter.client.descriptors()
        if self._waiters and self._held.descriptor is not None:
            yield self._held.descriptor

    def wait_s(self) -> float | None:
        """See `Duty`."""
        now = uptime_s()
        times = [one.until for one in self._handing]
        if self._rests_until > now:
            times.append(self._rests_until)
        if self._tasks.is_empty:
            times += [self._next_at, *(one.ends_at for one in self._waiters.values())]
        wait_s = min(times, default=math.inf) - now
        known = [wait_s, self._tasks.wait_s() or 0.0] if not self._tasks.is_empty else [wait_s]
        return None if min(known) == math.inf else max(min(known), 0.0)

    def step(self, ready: Set[int]) -> None:
        """See `Duty`."""
        self._tasks.step()
        self._accept()
        self._take_over()
        for waiter in list(self._waiters.values()):
            if not ready.isdisjoint(waiter.client.descriptors()) and waiter.client.is_gone():
                self._let_go(waiter)
        if self._held.descriptor in ready and self._held.were_freed():
            self._next_at = uptime_s()
        if self._tasks.is_empty:
            self._end_overdue()
            self._start_task()

    @property
    def _accepts(self) -> bool:
        return len(self._handing) < MAX_HANDED_AT_ONCE and self._rests_until <= uptime_s()

    def _accept(self) -> None:
        while self._accepts:
            try:
                peer, _ = self._listening.accept()
            except BlockingIOError:
                return
            except OSError:
                # No descriptor is left: they wait in the socket's queue.
                self._rests_until = uptime_s() + REST_S
                return
            if may_hand_over(peer):
                self._handing.append(HandingOver(peer, uptime_s()))
            else:
                peer.close()

    def _take_over(self) -> None:
        now = uptime_s()
        for one in self._handing:
            if (received := one.receive()) is not None:
                self._take(*received)
                one.confirm()
            if one.is_over or one.until <= now:
                one.close()
        self._handing = [one for one in self._handing if not (one.is_over or one.until <= now)]

    def _take(self, waiting: WaitingRequest, connection: socket.socket) -> None:
        """Take a waiter, or tell it why its user may not wait once more.

        Those that are stopped count as well, which have left the queue.
        """
        here, namespace = boot_id(), pid_namespace()
        others = [one.wait.waiting.waiter(here, namespace) for one in self._waiters.values()]
        why = too_many_waiters(waiting.limits, others, waiting.waiter(here, namespace))
        if not why:
            self._add(waiting, connection)
            return
        client = WaitingClient(waiting.client, connection)
        client.write(self._open_answers(waiting).failed(LimitError(why)))
        client.close()

    def _add(self, waiting: WaitingRequest, connection: socket.socket) -> None:
        """Take a waiter; one that asks again is in the place of what it was."""
        if before := self._waiters.pop(waiting.owner, None):
            before.client.close()
        self._leaving.pop(waiting.owner, None)
        state = WaitState.at_start(time.monotonic(), gives_up=waiting.gives_up)
        wait = Wait(waiting, self._open_answers(waiting), state, waiting.refusal)
        client = WaitingClient(waiting.client, connection)
        self._waiters[waiting.owner] = waiter = _Waiter(wait, client)
        if client.is_gone():
            self._let_go(waiter)
        self._next_at = uptime_s()

    def _end_overdue(self) -> None:
        """End the waits whose time is over; none is being given its GPUs now."""
        now = uptime_s()
        for waiter in [one for one in self._waiters.values() if one.ends_at <= now]:
            note_refused(self._files.directory.parent, waiter.wait.refusal.kind.value)
            waiter.client.write(waiter.wait.answers.refused(waiter.wait.refusal))
            self._let_go(waiter)

    def _let_go(self, waiter: _Waiter, *, holds: bool = False) -> None:
        """Have it leave the queue; what it holds, or may hold, is released."""
        del self._waiters[waiter.owner]
        self._leaving[waiter.owner] = holds or waiter.may_hold or waiter.client.has_ended()
        self._next_at = uptime_s()
        waiter.client.close()

    def _start_task(self) -> None:
        if self._next_at > uptime_s():
            return
        self._next_at = math.inf
        if self._leaving and not (self._skips_leaving and self._waiters):
            leaving, self._leaving = self._leaving, {}
            holders = [owner for owner, holds in leaving.items() if holds]
            leave = partial(
                leave_queue, self._node, self._files, list(leaving), holders, self._ports
            )
            self._tasks.start(QUEUE, leave, TASK_LIMIT_S, partial(self._note_left, leaving))
        elif self._waiters:
            self._skips_leaving = False
            self._held.note()
            waits = [one.wait for one in self._waiters.values()]
            check = partial(check_queue, self._node, self._files, waits, self._ports)
            on_end = partial(self._note_checked, dict(self._waiters))
            self._tasks.start(QUEUE, check, TASK_LIMIT_S, on_end)

    def _note_left(self, leaving: Mapping[str, bool], outcome: bool | TaskError) -> None:
        if isinstance(outcome, TaskError):
            again = {owner: holds for owner, holds in leaving.items() if owner not in self._waiters}
            self._leaving = {**again, **self._leaving}
            # A store that does not answer must not keep those who wait from their turn.
            self._skips_leaving = True
            self._be_next_in(CHECK_INTERVAL_S)
        else:
            self._be_next_in(0.0)

    def _note_checked(
        self, checked: Mapping[str, _Waiter], outcomes: Mapping[str, Checked] | TaskError
    ) -> None:
        is_calm = not isinstance(outcomes, TaskError) and all(
            owner in outcomes and outcomes[owner].is_calm for owner in checked
        )
        self._be_next_in(CALM_CHECK_INTERVAL_S if is_calm else CHECK_INTERVAL_S)
        for owner, waiter in checked.items():
            if isinstance(outcomes, TaskError):
                waiter.may_hold = True
                text = without_ledger_text(str(outcomes))
                if self._is_here(waiter) and not waiter.show(text, text):
                    self._let_go(waiter)
            elif owner in outcomes:
                self._note_outcome(waiter, outcomes[owner])

    def _note_outcome(self, waiter: _Waiter, checked: Checked) -> None:
        outcome = checked.outcome
        waiter.may_hold = False
        waiter.wait.state = checked.state
        if not isinstance(outcome, Answered):
            waiter.wait.refusal = outcome.refusal
            if self._is_here(waiter) and not waiter.show(outcome.text, outcome.steady):
                self._let_go(waiter)
            return
        if not self._is_here(waiter):
            # It went, or asks anew, while it was given its GPUs: whoever asks gets the same ones.
            if outcome.is_grant and waiter.owner not in self._waiters:
                self._leaving[waiter.owner] = True
            return
        is_told = waiter.client.write(outcome.answer)
        if outcome.is_grant and is_told:
            del self._waiters[waiter.owner]
            waiter.client.close()
            # The next one may be served, too.
            self._be_next_in(0.0)
        else:
            self._let_go(waiter, holds=outcome.is_grant)

    def _is_here(self, waiter: _Waiter) -> bool:
        return self._waiters.get(waiter.owner) is waiter

    def _be_next_in(self, wait_s: float) -> None:
        """Have the next task no later than that."""
        self._next_at = min(self._next_at, uptime_s() + wait_s)
