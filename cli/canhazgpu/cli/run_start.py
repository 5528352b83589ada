"""The step of `canhazgpu run` from its grant to its command: the keeper first."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NoReturn

from canhazgpu.cli.acquire import Acquisition, open_service
from canhazgpu.errors import NodeStateError
from canhazgpu.node.marked import new_mark
from canhazgpu.people.launch import become, run_environment

if TYPE_CHECKING:
    from canhazgpu.cli.app import App
    from canhazgpu.ledger.port import Ledger
    from canhazgpu.node.watch import ProcessWatch
    from canhazgpu.people.keeper import Keeper
    from canhazgpu.service import Grant

READY = b"ready"


@dataclass(frozen=True, slots=True)
class Bounds:
    """What ends the command before it ends itself, none of it unless asked for."""

    timeout_s: float | None = None
    ends_when_lost: bool = False


class Start:
    """A command about to start with the GPUs of a grant."""

    def __init__(self, app: App, acquisition: Acquisition, grant: Grant, bounds: Bounds) -> None:
        self._app = app
        self._acquisition = acquisition
        self._grant = grant
        self._bounds = bounds
        self._mark = new_mark(acquisition.claim.owner)

    def become(self, command: Sequence[str]) -> NoReturn:
        """Become the command; where that fails, release the GPUs and say why."""
        try:
            self._start_keeper()
            environ = run_environment(
                self._app.environ,
                self._mark,
                self._grant.gpus,
                self._acquisition.config.run.export,
            )
            sys.stdout.flush()
            sys.stderr.flush()
            become(command, environ)
        except BaseException:
            ledger, node = self._acquisition.ledger, self._acquisition.node
            ledger.release(node, self._acquisition.claim.owner, "its command did not start")
            raise

    def _start_keeper(self) -> None:
        from canhazgpu.node.detach import spawn_detached  # noqa: PLC0415 - only after a grant
        from canhazgpu.people.keeper import run_keeper  # noqa: PLC0415

        (command,) = self._acquisition.claim.processes
        try:
            said = spawn_detached(partial(run_keeper, make=self._keeper, command=command))
        except OSError as exc:
            raise NodeStateError(f"cannot start a process: {exc.strerror}") from exc
        if said != READY:
            raise NodeStateError("the process that keeps the reservation did not start")

    def _keeper(self, watch: ProcessWatch) -> Keeper:
        from canhazgpu.people.keeper import Keeper, Kept  # noqa: PLC0415 - only after a grant

        claim = self._acquisition.claim
        kept = Kept(
            node=self._acquisition.node,
            owner=claim.owner,
            mark=self._mark,
            command=claim.processes[0],
            heartbeat_s=self._acquisition.config.run.heartbeat_s,
            timeout_s=self._bounds.timeout_s,
            ends_when_lost=self._bounds.ends_when_lost,
        )
        return Keeper(kept, watch, self._open_ledger, self._restore)

    def _open_ledger(self) -> Ledger:
        # Its own connection: the one before belongs to the process that was forked from.
        return self._app.writer(self._acquisition.config.store)

    def _restore(self, ledger: Ledger) -> str:
        from canhazgpu.people.lost import restore  # noqa: PLC0415 - hardly ever needed

        node = self._acquisition.node
        probe = self._app.probe(node, self._acquisition.config.validation)
        service = open_service(node, probe, ledger)
        gpus = [gpu.uuid for gpu in self._grant.gpus]
        return restore(ledger, service, self._acquisition.claim, gpus)
