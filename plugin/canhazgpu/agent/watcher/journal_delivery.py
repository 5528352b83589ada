"""Deliver the node's journal as soon as the store answers, without waiting for a hook to do it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Set
from pathlib import Path

from canhazgpu.agent.watcher.forked_task import ForkedTask, TaskError
from canhazgpu.agent.watcher.journal_watch import JournalWatch
from canhazgpu.config.schema import Config, StoreConfig
from canhazgpu.errors import CanhazgpuError, error_text, internal_error_text
from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.in_process.book.journal_delivery import deliver_journal
from canhazgpu.in_process.book.store_ledgers import identified_writer
from canhazgpu.ledger.local.book.journal import pending_entries
from canhazgpu.logfmt import log_line
from canhazgpu.node.identity import state_dir
from canhazgpu.node.system_log import DAEMON_INFO, write_syslog

LOOK_AFTER_S = 0.5
"""How long after a change the journal is looked at: a hook that reaches the store empties it."""
FIRST_WAIT_S = 0.5
"""Between the first two tries; it doubles up to `store.retry_after_s`."""
TRY_LIMIT_S = 120.0
"""Longest time of one try; a journal of a long outage has many entries."""
LOOK_AGAIN_S = 5.0
"""How often the journal is looked at where changes are not seen."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """What one try did: the number of entries delivered, or why not.

    `retry_after_s` is the configured limit of the time between two tries, in seconds.
    """

    entries: int
    failure: str = ""
    retry_after_s: float = StoreConfig().retry_after_s


def deliver(node: str, environ: Mapping[str, str], read_config: Callable[[], Config]) -> Delivery:
    """Try once to deliver the node's journal.

    `environ` tells where Slurm's files are, which name the cluster. The configuration is read anew
    for each try: an administrator may have mended it.
    """
    retry_after_s = StoreConfig().retry_after_s
    try:
        config = read_config()
        retry_after_s = config.store.retry_after_s
        pending = len(pending_entries(state_dir(config.node, node), node))
        if pending:
            deliver_journal(node, config, identified_writer(node, config, environ))
    except CanhazgpuError as exc:
        return Delivery(0, error_text(exc), retry_after_s)
    except Exception as exc:
        # Whatever a server that is none of ours has answered.
        return Delivery(0, internal_error_text(exc), retry_after_s)
    return Delivery(pending, "", retry_after_s)


class JournalDelivery:
    """The delivery of one node's journal; see `Duty`. `deliver` tries once, in a child."""

    def __init__(
        self,
        node: str,
        state_dir: Path,
        deliver: Callable[[], Delivery],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._node = node
        self._deliver = deliver
        self._clock = clock
        self._journal = JournalWatch(state_dir)
        self._task: ForkedTask[Delivery] | None = None
        self._look_at: float | None = clock()
        self._wait_s = 0.0
        self._told = ""

    @property
    def is_done(self) -> bool:
        """See `Duty`."""
        return self._task is None and not self._journal.has_entries()

    @property
    def is_trying(self) -> bool:
        """Whether a try is under way."""
        return self._task is not None

    def descriptors(self) -> Iterable[int]:
        """See `Duty`."""
        if self._task is not None:
            yield self._task.descriptor
        elif self._look_at is None and self._journal.descriptor is not None:
            yield self._journal.descriptor

    def wait_s(self) -> float | None:
        """See `Duty`."""
        if self._task is not None:
            return self._task.wait_s
        if self._look_at is None:
            return LOOK_AGAIN_S if self._journal.descriptor is None else None
        return max(self._look_at - self._clock(), 0.0)

    def step(self, ready: Set[int]) -> None:
        """See `Duty`."""
        if self._task is not None:
            self._note_end(self._task)
        elif self._journal.descriptor in ready and self._look_at is None:
            self._look_at = self._clock() + LOOK_AFTER_S
        elif self._is_due():
            self._look_at = None
            self._journal.forget_events()
            if self._journal.has_entries():
                self._start()

    def _is_due(self) -> bool:
        if self._look_at is None:
            return self._journal.descriptor is None
        return self._look_at <= self._clock()

    def _start(self) -> None:
        try:
            self._task = ForkedTask(self._deliver, TRY_LIMIT_S)
        except TaskError as exc:
            self._later(str(exc), self._wait_s)

    def _note_end(self, task: ForkedTask[Delivery]) -> None:
        try:
            ended = task.take()
        except TaskError as exc:
            ended = (Delivery(0, str(exc)),)
        if ended is None:
            return
        self._task = None
        (done,) = ended
        if done.failure:
            self._later(done.failure, done.retry_after_s)
            return
        if not done.entries and self._journal.has_entries():
            # Lines that nobody can read, which stay until an entry after them is delivered.
            self._wait_longer(done.retry_after_s)
            return
        self._wait_s = 0.0
        self._told = ""
        # What was added meanwhile.
        self._look_at = self._clock()
        if done.entries:
            line = log_line("journal-delivered", node=self._node, entries=done.entries)
            write_syslog(line, DAEMON_INFO)

    def _later(self, why: str, longest_wait_s: float) -> None:
        if why != self._told:
            write_syslog(log_line("journal-waits", node=self._node, reason=why))
            self._told = why
        self._wait_longer(longest_wait_s)

    def _wait_longer(self, longest_wait_s: float) -> None:
        self._wait_s = max(min(self._wait_s * 2 or FIRST_WAIT_S, longest_wait_s), FIRST_WAIT_S)
        self._look_at = self._clock() + self._wait_s
