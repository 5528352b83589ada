"""How a process hands over what goes on after its request: a run to watch, a request that waits.

Where there is none, a run has a monitor of its own, and who waits does so in this process.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import NoReturn

from canhazgpu.errors import NodeStateError
from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.in_process.watching.waiting_request import RunSettings, WaitingRequest
from canhazgpu.ledger.local.runs.run_files import RunFiles
from canhazgpu.ledger.local.runs.run_record import RunRecord
from canhazgpu.ledger.values import Claim
from canhazgpu.node.boot_clock import uptime_s
from canhazgpu.node.identity import boot_id
from canhazgpu.node.process_id import ProcessId
from canhazgpu.node.run_marker import new_run_marker


class HandedOverError(BaseException):
    """The request waits elsewhere from now on: nothing is left to be done or undone here."""


@dataclass(frozen=True, slots=True)
class WatchedGrants:
    """The node's watcher, as somebody's request uses it.

    `agent` is the agent's process, `gid` and `groups` are those of the process that asks.
    `hand_over` raises `HandedOverError`.
    """

    files: RunFiles
    agent: ProcessId
    gid: int
    groups: tuple[int, ...]
    hand_over: Callable[[WaitingRequest], NoReturn]

    def run_settings(
        self, owner: str, timeout_s: float | None, *, ends_when_lost: bool
    ) -> RunSettings:
        """Return what a run of this owner needs.

        Who asks again, after an answer that was lost, gets the marker of its record: the watcher
        may look for that one already.
        """
        known = self.files.load(owner, boot_id())
        marker = new_run_marker(owner) if known is None else known.marker
        return RunSettings(marker, self.gid, self.groups, timeout_s, ends_when_lost)


class RunRecording:
    """Records a run before its grant is final: it is watched from then on, whoever dies."""

    def __init__(self, files: RunFiles, claim: Claim, run: RunSettings) -> None:
        self._files = files
        self._claim = claim
        self.run = run
        self._is_written = False

    def write(self, gpus: Sequence[str]) -> None:
        """Write the record of a run that begins now. Raises `NodeStateError`."""
        self._is_written = True
        run = self.run
        record = RunRecord(
            self._claim,
            run.marker,
            tuple(gpus),
            run.gid,
            run.groups,
            uptime_s(),
            run.timeout_s,
            run.ends_when_lost,
        )
        try:
            self._files.write(record)
        except OSError as exc:
            raise NodeStateError(
                f"cannot keep the record of a run in {self._files.directory}: {exc.strerror or exc}"
            ) from exc

    def forget(self) -> None:
        """Remove the record, if it was written: there is no grant."""
        if self._is_written:
            with contextlib.suppress(OSError):
                self._files.remove(self._claim.owner)
