"""How `run` and `reserve` get their GPUs: the ports of this node, the queue, the grant."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import click

from canhazgpu.cli.ended_by_signals import ended_by_signals, ending
from canhazgpu.errors import StoreError, UnavailableError
from canhazgpu.gpu.ids import resolve
from canhazgpu.ledger.port import Terms
from canhazgpu.ledger.values import Waiter
from canhazgpu.node.alive import is_alive, is_stopped, this_process
from canhazgpu.node.identity import boot_id, node_name, pid_namespace
from canhazgpu.people.gone import Here

if TYPE_CHECKING:
    from canhazgpu.cli.app import App
    from canhazgpu.cli.wanted import Wanted
    from canhazgpu.config import Config
    from canhazgpu.gpu.scan import GpuReading
    from canhazgpu.ledger.port import Ledger
    from canhazgpu.ledger.values import Claim
    from canhazgpu.people.wait import Progress
    from canhazgpu.probe.port import GpuProbe
    from canhazgpu.refusal import Refusal
    from canhazgpu.service import GpuService, Grant

SIGNS_PER_LEASE = 3


@dataclass(slots=True)
class Acquisition:
    """GPUs of this node for one claim: the ports, opened, and the claim."""

    node: str
    config: Config
    service: GpuService
    ledger: Ledger
    claim: Claim

    def get(self, app: App, wanted: Wanted) -> Grant:
        """Return the grant; waits as long as wanted. Raises `UnavailableError`."""
        from canhazgpu.service import Grant  # noqa: PLC0415 - not for the help

        outcome = self._outcome(wanted, app.progress())
        if isinstance(outcome, Grant):
            return outcome
        for detail in outcome.details:
            click.echo(f"canhazgpu: {detail}", err=True)
        raise UnavailableError(outcome.reason)

    def _outcome(self, wanted: Wanted, progress: Progress) -> Grant | Refusal:
        from canhazgpu.people.wait import Patience, Waiting  # noqa: PLC0415 - imports the service

        request = _Request(self, wanted)
        waiting = Waiting(self.service, self.ledger, self.node, request.attempt, progress)
        with ended_by_signals() as came, self._given_back():
            # What the dead kept is free with the next operation, whoever needs it.
            self.service.living_view()
            outcome = waiting.get(request.waiter, Patience(wanted.wait_s, self._sign_every_s()))
            if came:
                raise ending(came[0])
        return outcome

    @contextmanager
    def _given_back(self) -> Iterator[None]:
        """Give back what was granted where the caller is never to hear of it."""
        try:
            yield
        except BaseException:
            with suppress(StoreError):
                self.ledger.release(self.node, self.claim.owner, "gave up")
            raise

    def _sign_every_s(self) -> float:
        # Whoever is silent for a whole lease loses its place.
        return min(self.config.run.heartbeat_s, self.config.run.lease_s / SIGNS_PER_LEASE)


class _Request:
    """What is asked of the service each time, and of the queue in between."""

    def __init__(self, acquisition: Acquisition, wanted: Wanted) -> None:
        self._acquisition = acquisition
        self._wanted = wanted
        self._terms = Terms(queues=True, affinity=wanted.affinity)
        self._named: tuple[str, ...] = ()
        """The UUIDs of the GPUs that were asked for, as the latest scan has them."""

    def attempt(self) -> Grant | Refusal:
        """Ask once."""
        service, claim, wanted = self._acquisition.service, self._acquisition.claim, self._wanted
        if wanted.selectors:
            return service.reserve_given(claim, self._select, terms=self._terms, force=wanted.force)
        return service.reserve_count(claim, wanted.count, terms=self._terms, force=wanted.force)

    def _select(self, readings: Sequence[GpuReading]) -> Sequence[str]:
        self._named = resolve(self._wanted.selectors, readings, self._acquisition.node)
        return self._named

    def waiter(self) -> Waiter:
        """Return the place in the queue, once an attempt was refused."""
        # Whoever waits has the time to import what each of its scans' children then inherits.
        import canhazgpu.probe.nvml  # noqa: F401, PLC0415

        claim = self._acquisition.claim
        return Waiter(
            owner=claim.owner,
            user=claim.user,
            uid=claim.uid,
            count=self._wanted.count,
            gpus=self._named,
            boot_id=boot_id(),
            processes=(this_process(),),
            pid_namespace=pid_namespace(),
            lease_s=self._acquisition.config.run.lease_s,
        )


def open_acquisition(app: App, config: Config, claim: Claim) -> Acquisition:
    """Open this node's ledger and probe for a claim."""
    node = node_name(config.node, app.environ)
    ledger = app.writer(config.store)
    probe = app.probe(node, config.validation)
    return Acquisition(node, config, open_service(node, probe, ledger), ledger, claim)


def open_service(node: str, probe: GpuProbe, ledger: Ledger) -> GpuService:
    """Return the service of this node as this process sees it."""
    from canhazgpu.service import GpuService  # noqa: PLC0415 - not for the help

    return GpuService(node, Here(boot_id(), pid_namespace(), is_alive, is_stopped), probe, ledger)


def warn_of_intruders(grant: Grant, node: str) -> None:
    """Say loudly whose processes are on the GPUs that were taken all the same."""
    from canhazgpu.cli.terminal_text import printable  # noqa: PLC0415 - only with --force
    from canhazgpu.refusal import intruder_text  # noqa: PLC0415

    for gpu in grant.gpus:
        if gpu.uuid in grant.in_use:
            text = printable(intruder_text(gpu, node))
            click.secho(f"canhazgpu: WARNING: taken by force: {text}", fg="red", err=True)


def with_processes(claim: Claim) -> Claim:
    """Return the claim that lives as long as this process does."""
    return replace(
        claim,
        boot_id=boot_id(),
        processes=(this_process(),),
        pid_namespace=pid_namespace(),
    )
