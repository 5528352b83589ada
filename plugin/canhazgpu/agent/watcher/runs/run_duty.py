"""Watch all runs of a node: heartbeats, their time, what they leave behind, and the release.

A run's record is all that a watcher needs, so that one can go on after any other. The command is
the process that its user started: nothing that is done to it, or to the user's other processes,
reaches the watcher.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Set
from functools import partial

from canhazgpu.agent.watcher.forked_task import TaskError
from canhazgpu.agent.watcher.runs.run_plan import Heartbeat, Phase, RunPlan, Signal, Tell
from canhazgpu.agent.watcher.runs.run_tasks import (
    Left,
    Lost,
    Missing,
    NotReleased,
    Renewed,
    RunPorts,
    end_all,
    renew_all,
    signal_background,
    tell_run,
)
from canhazgpu.agent.watcher.runs.runs_watch import RunsWatch
from canhazgpu.agent.watcher.task_slots import TaskSlots
from canhazgpu.logfmt import log_line
from canhazgpu.node.boot_clock import uptime_s
from canhazgpu.node.process_id import ProcessId
from canhazgpu.node.process_watch import ProcessWatch
from canhazgpu.node.system_log import write_syslog

STORE_LIMIT_S = 30.0
"""Longest time of the heartbeats of all runs, and of their releases."""
PROCESS_LIMIT_S = 10.0
"""Longest time of a look for processes: one that its user made to hang is that user's affair."""
TELL_LIMIT_S = 2.0
POLL_S = 1.0
"""How often runs are looked at that nothing tells of: a kernel without pidfds or inotify."""


class _WatchedRun:
    """A run and the processes whose end is waited for."""

    def __init__(self, plan: RunPlan) -> None:
        self.plan = plan
        self.command = ProcessWatch([plan.record.command])
        self._background: ProcessWatch | None = None
        # Before this watch, perhaps: then no descriptor tells.
        self._is_new = True

    @property
    def waited_for(self) -> ProcessWatch | None:
        """The processes of the present phase, None while it is not known who is left."""
        watches = {Phase.COMMAND: self.command, Phase.BACKGROUND: self._background}
        return watches.get(self.plan.phase)

    def has_ended(self, ready: Set[int]) -> bool:
        """Tell whether one of the processes has ended that are waited for."""
        watch = self.waited_for
        if watch is None:
            return False
        descriptors = watch.descriptors
        if descriptors and not self._is_new and ready.isdisjoint(descriptors):
            return False
        self._is_new = False
        return watch.wait_for_exit(0)

    def note_left(self, processes: tuple[ProcessId, ...], now: float) -> None:
        """Wait for the first of these to end."""
        self._close_background()
        self._background = ProcessWatch(processes)
        self._is_new = True
        self.plan.left(processes, now)

    def close(self) -> None:
        """Close what is open."""
        self.command.close()
        self._close_background()

    def _close_background(self) -> None:
        if self._background is not None:
            self._background.close()
            self._background = None


class RunDuty:
    """All runs of a node; see `Duty`.

    `keeper` is the agent's process. Only children open the ports.
    """

    def __init__(
        self,
        node: str,
        boot_id: str | None,
        watch: RunsWatch,
        keeper: ProcessId,
        heartbeat_s: float,
        ports: RunPorts,
        clock: Callable[[], float] = uptime_s,
    ) -> None:
        self._node = node
        self._boot_id = boot_id
        self._watch, self._files = watch, watch.files
        self._keeper = keeper
        self._heartbeat_s = heartbeat_s
        self._ports = ports
        self._clock = clock
        self._runs: dict[str, _WatchedRun] = {}
        self._tasks = TaskSlots()
        self._numbers = 0
        self._files.remove_others(boot_id)
        self._read_records()

    @property
    def is_done(self) -> bool:
        """See `Duty`."""
        return not self._runs and self._tasks.is_empty

    def descriptors(self) -> Iterator[int]:
        """See `Duty`."""
        if self._watch.descriptor is not None:
            yield self._watch.descriptor
        yield from self._tasks.descriptors()
        for run in self._runs.values():
            if run.waited_for is not None:
                yield from run.waited_for.descriptors

    def wait_s(self) -> float | None:
        """See `Duty`."""
        now, renews = self._clock(), not self._tasks.is_busy("heartbeats")
        known = []
        for run in self._runs.values():
            ends = not self._tasks.is_busy(("end", run.plan.record.uid))
            known.append(run.plan.next_at(ends=ends, renews=renews) - now)
        if (task_wait_s := self._tasks.wait_s()) is not None:
            known.append(task_wait_s)
        if self._watch.descriptor is None or any(map(_is_polled, self._runs.values())):
            known.append(POLL_S)
        wait_s = min(known, default=math.inf)
        return None if wait_s == math.inf else max(wait_s, 0.0)

    def step(self, ready: Set[int]) -> None:
        """See `Duty`."""
        self._tasks.step()
        if self._watch.descriptor is None or self._watch.descriptor in ready:
            self._watch.forget_events()
            self._read_records()
        now = self._clock()
        for run in self._runs.values():
            if run.has_ended(ready):
                run.plan.ended(now)
            self._do(run, run.plan.actions(now))
        self._start_ends(now)
        self._start_heartbeats(now)

    def _read_records(self) -> None:
        """Watch the runs that have a record, and no others."""
        owners = self._files.owners()
        for owner in self._runs.keys() - owners:
            self._runs.pop(owner).close()
        for owner in owners - self._runs.keys():
            if record := self._files.load(owner, self._boot_id):
                now = self._clock()
                plan = RunPlan(record, self._keeper, self._heartbeat_s, now)
                self._runs[owner] = _WatchedRun(plan)

    def _do(self, run: _WatchedRun, actions: Iterable[Tell | Signal]) -> None:
        """Do these one after the other: who is told something is to live to see it."""
        left = list(actions)
        if not left:
            return
        first, rest = left[0], left[1:]
        record = run.plan.record
        self._numbers += 1
        purpose = "action", self._numbers

        def go_on(_done: bool | TaskError) -> None:
            self._do(run, rest)

        if isinstance(first, Tell):
            tell = partial(tell_run, record, first.text)
            self._tasks.start(purpose, tell, TELL_LIMIT_S, go_on)
        else:
            run.command.send_signal(first.number)
            send = partial(signal_background, record, first.number)
            self._tasks.start(purpose, send, PROCESS_LIMIT_S, go_on)

    def _start_ends(self, now: float) -> None:
        """Have the end of runs looked into, user by user: one user's runs keep no other's."""
        due: dict[int, dict[str, str]] = {}
        for owner, run in self._runs.items():
            record = run.plan.record
            if not self._tasks.is_busy(("end", record.uid)) and run.plan.is_end_due(now):
                due.setdefault(record.uid, {})[owner] = record.marker
        for uid, markers in due.items():
            work = partial(end_all, self._node, uid, markers, self._ports)
            on_end = partial(self._note_ends, tuple(markers))
            self._tasks.start(("end", uid), work, STORE_LIMIT_S, on_end)

    def _note_ends(
        self, owners: Collection[str], outcomes: Mapping[str, Left | NotReleased] | TaskError
    ) -> None:
        now = self._clock()
        for owner in owners:
            run = self._runs.get(owner)
            if run is None:
                continue
            if isinstance(outcomes, TaskError):
                outcome: Left | NotReleased = NotReleased(str(outcomes))
            else:
                outcome = outcomes[owner]
            if isinstance(outcome, NotReleased):
                self._log(f"cannot end {owner}: {outcome.reason}")
                run.plan.end_failed(now)
            elif outcome.processes:
                run.note_left(outcome.processes, now)
            else:
                # A record that cannot be removed is one of a run that ends again.
                with contextlib.suppress(OSError):
                    self._files.remove(owner)
                self._runs.pop(owner).close()

    def _start_heartbeats(self, now: float) -> None:
        if self._tasks.is_busy("heartbeats"):
            return
        due = [
            (run.plan.record, heartbeat)
            for run in self._runs.values()
            if (heartbeat := run.plan.heartbeat(now)) is not None
        ]
        if due:
            work = partial(renew_all, self._node, due, self._ports)
            sent = {record.owner: heartbeat for record, heartbeat in due}
            self._tasks.start(
                "heartbeats", work, STORE_LIMIT_S, partial(self._note_heartbeats, sent)
            )

    def _note_heartbeats(
        self,
        sent: Mapping[str, Heartbeat],
        outcomes: Mapping[str, Renewed | Missing | Lost] | TaskError,
    ) -> None:
        if isinstance(outcomes, TaskError):
            return
        now = self._clock()
        for owner, outcome in outcomes.items():
            run = self._runs.get(owner)
            if run is None:
                continue
            if isinstance(outcome, Renewed):
                run.plan.renewed(sent[owner])
            elif isinstance(outcome, Missing):
                run.plan.missed(now)
            else:
                self._do(run, run.plan.lost(outcome.reason, now))

    def _log(self, reason: str) -> None:
        write_syslog(log_line("run-not-ended", node=self._node, reason=reason))


def _is_polled(run: _WatchedRun) -> bool:
    """Tell whether the kernel gives nothing that tells of an end."""
    return run.waited_for is not None and not run.waited_for.descriptors
