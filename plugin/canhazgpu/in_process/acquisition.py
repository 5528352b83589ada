"""How `run` and `reserve` get their GPUs: the queue, the grant, and what a signal gives back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from canhazgpu.allocation.allocator import GpuAllocator, Grant
from canhazgpu.allocation.liveness import LivenessContext
from canhazgpu.allocation.progress import Progress
from canhazgpu.allocation.queue_wait import QueueWait, WaitOptions
from canhazgpu.errors import StoreError
from canhazgpu.gpu.ids import resolve_gpus
from canhazgpu.in_process.ended_by_signals import ended_by_signals, ending
from canhazgpu.ledger.port import GrantOptions
from canhazgpu.ledger.values import Waiter
from canhazgpu.node.identity import boot_id, node_name, pid_namespace
from canhazgpu.node.processes import is_alive, is_stopped, this_process

if TYPE_CHECKING:
    from canhazgpu.allocation.refusal import Refusal
    from canhazgpu.config import Config
    from canhazgpu.gpu.scan import GpuReading
    from canhazgpu.in_process.adapters import Adapters
    from canhazgpu.ledger.port import Ledger
    from canhazgpu.ledger.values import Claim
    from canhazgpu.probe.port import GpuProbe
    from canhazgpu.service.grants import GpuRequest

SIGNS_PER_LEASE = 3


@dataclass(slots=True)
class Acquisition:
    """GPUs of this node for one claim: the ports, opened, and the claim."""

    node: str
    config: Config
    service: GpuAllocator
    ledger: Ledger
    claim: Claim

    def get(self, asked: GpuRequest, progress: Progress) -> Grant | Refusal:
        """Return the grant, or why there is none; waits as long as asked."""
        request = _Request(self, asked)
        waiting = QueueWait(self.service, self.ledger, self.node, request.attempt, progress)
        with ended_by_signals() as came, self._given_back():
            # What the dead kept is free with the next operation, whoever needs it.
            self.service.reaped_view()
            outcome = waiting.get(request.waiter, WaitOptions(asked.wait_s, self._sign_every_s()))
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

    def __init__(self, acquisition: Acquisition, wanted: GpuRequest) -> None:
        self._acquisition = acquisition
        self._wanted = wanted
        affinity = wanted.affinity
        if affinity is None:
            affinity = acquisition.config.run.choice == "affinity"
        self._options = GrantOptions(queues=True, affinity=affinity)
        self._named: tuple[str, ...] = ()
        """The UUIDs of the GPUs that were asked for, as the latest scan has them."""

    def attempt(self) -> Grant | Refusal:
        """Ask once."""
        service, claim, wanted = self._acquisition.service, self._acquisition.claim, self._wanted
        if wanted.selectors:
            return service.reserve_given(
                claim, self._select, options=self._options, force=wanted.force
            )
        return service.reserve_count(claim, wanted.count, options=self._options, force=wanted.force)

    def _select(self, readings: Sequence[GpuReading]) -> Sequence[str]:
        self._named = resolve_gpus(self._wanted.selectors, readings, self._acquisition.node)
        return self._named

    def waiter(self) -> Waiter:
        """Return the place in the queue, once an attempt was refused."""
        # Whoever waits has the time to import what each of its scans' children then inherits.
        import canhazgpu.probe.nvml.reader  # noqa: F401, PLC0415

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


def open_acquisition(adapters: Adapters, config: Config, claim: Claim) -> Acquisition:
    """Open this node's ledger and probe for a claim."""
    node = node_name(config.node, adapters.environ)
    ledger = adapters.writer(config.store)
    probe = adapters.probe(node, config.validation)
    return Acquisition(node, config, open_service(node, probe, ledger), ledger, claim)


def open_service(node: str, probe: GpuProbe, ledger: Ledger) -> GpuAllocator:
    """Return the service of this node as this process sees it."""
    return GpuAllocator(
        node, LivenessContext(boot_id(), pid_namespace(), is_alive, is_stopped), probe, ledger
    )


def with_processes(claim: Claim) -> Claim:
    """Return the claim that lives as long as this process does."""
    return replace(
        claim,
        boot_id=boot_id(),
        processes=(this_process(),),
        pid_namespace=pid_namespace(),
    )
