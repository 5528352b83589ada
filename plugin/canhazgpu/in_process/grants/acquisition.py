"""Acquire GPUs for `run` and `reserve`: wait in the queue, reserve, and release on an error."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, NoReturn

from canhazgpu.allocation.allocator import GpuAllocator, Grant
from canhazgpu.allocation.gpu_choice import ByProfile, GpuChoice, refuse_mixed_gpus
from canhazgpu.allocation.liveness import LivenessContext
from canhazgpu.allocation.numbered_choice import NumberedByCuda, refuse_unnumbered
from canhazgpu.allocation.progress import Progress
from canhazgpu.allocation.queue_wait import QueueWait, WaitOptions
from canhazgpu.errors import LimitError, StoreError
from canhazgpu.gpu.ids import resolve_gpus
from canhazgpu.in_process.grants.limits import refuse_over_limit, requested_count, user_limits
from canhazgpu.in_process.grants.refused_requests import OVER_LIMIT, note_refused
from canhazgpu.in_process.grants.scan_feasibility import scan_feasibility
from canhazgpu.in_process.watching.waiting_request import RunSettings, WaitingRequest
from canhazgpu.in_process.watching.watched_grants import HandedOverError, RunRecording
from canhazgpu.ledger.port import GrantOptions
from canhazgpu.ledger.release_reasons import GAVE_UP
from canhazgpu.ledger.store.connect import import_client
from canhazgpu.ledger.user_limits import NO_LIMITS, UserLimits
from canhazgpu.ledger.values import Waiter
from canhazgpu.node.boot_clock import uptime_s
from canhazgpu.node.identity import boot_id, node_name, pid_namespace, state_dir
from canhazgpu.node.processes import is_alive, is_stopped, this_process
from canhazgpu.node.termination_signals import (
    raise_on_termination_signals,
    termination_exception,
)

if TYPE_CHECKING:
    from canhazgpu.allocation.feasibility import Feasibility
    from canhazgpu.allocation.refusal import Refusal
    from canhazgpu.config import Config
    from canhazgpu.gpu.scan import GpuReading
    from canhazgpu.in_process.adapters import Adapters
    from canhazgpu.ledger.port import Ledger
    from canhazgpu.ledger.values import Claim, NodeView
    from canhazgpu.node.process_id import ProcessId
    from canhazgpu.probe.port import GpuProbe
    from canhazgpu.service.grants import GpuRequest

HEARTBEATS_PER_LEASE = 3
"""A waiter that sends no heartbeat for a whole lease loses its place in the queue."""

EXPORT_KEY = "run.export"


@dataclass(slots=True)
class Acquisition:
    """Acquires GPUs of this node for one claim, through ports that are open.

    `process` is the one that asks. `recording` records a run that is watched elsewhere, and
    `hand_over` has a request wait elsewhere.
    """

    node: str
    config: Config
    allocator: GpuAllocator
    ledger: Ledger
    claim: Claim
    limits: UserLimits = NO_LIMITS
    process: ProcessId = field(default_factory=this_process)
    recording: RunRecording | None = None
    hand_over: Callable[[WaitingRequest], NoReturn] | None = None

    def acquire(
        self, request: GpuRequest, progress: Progress, *, for_command: bool = False
    ) -> Grant | Refusal:
        """Return the grant, or why there is none; waits up to `request.wait_s` seconds.

        Raises `LimitError` for more than the site allows the claim's user. A command gets one MIG
        instance at most, since CUDA shows a process no more.
        """
        attempts = ReserveAttempts(self, request, for_command=for_command)
        hand_over = self.hand_over and partial(self._hand_over, self.hand_over, request)
        queue_wait = QueueWait(self.allocator, self.ledger, attempts, progress, hand_over)
        options = WaitOptions(request.wait_s, heartbeat_interval_s(self.config))
        with raise_on_termination_signals() as received, self._release_on_error():
            # First release the GPUs of owners that are dead.
            view = self.allocator.reaped_view()
            try:
                refuse_over_limit(self.limits, view, self.claim, requested_count(request))
                outcome = queue_wait.acquire(options)
            except LimitError:
                self._note_refused(OVER_LIMIT)
                raise
            if received:
                raise termination_exception(received[0])
        if not isinstance(outcome, Grant):
            self._note_refused(outcome.kind.value)
        if self.recording is not None and not isinstance(outcome, Grant):
            self.recording.forget()
        return outcome

    def _note_refused(self, cause: str) -> None:
        note_refused(state_dir(self.config.node, self.node), cause)

    def _hand_over(
        self,
        hand_over: Callable[[WaitingRequest], NoReturn],
        request: GpuRequest,
        waiter: Waiter,
        refusal: Refusal,
    ) -> NoReturn:
        """Have the request wait elsewhere; raises `HandedOverError`."""
        wait_s = request.wait_s
        hand_over(
            WaitingRequest(
                self.claim,
                request,
                self.process,
                waiter.lease_s,
                refusal,
                waiter.gpus,
                None if wait_s is None or math.isinf(wait_s) else uptime_s() + wait_s,
                wait_s is None,
                self.recording.run if self.recording else None,
                limits=self.limits,
            )
        )

    @contextmanager
    def _release_on_error(self) -> Iterator[None]:
        """Release the claim's GPUs if an exception keeps the grant from the caller."""
        try:
            yield
        except HandedOverError:
            raise
        except BaseException:
            if self.recording is not None:
                self.recording.forget()
            with suppress(StoreError):
                self.ledger.release(self.node, self.claim.owner, GAVE_UP)
            raise


class ReserveAttempts:
    """Attempts to reserve the GPUs of one request, and its waiter between two attempts."""

    def __init__(self, acquisition: Acquisition, request: GpuRequest, *, for_command: bool) -> None:
        self._for_command = for_command
        self._acquisition = acquisition
        self._request = request
        affinity = request.affinity
        if affinity is None:
            affinity = acquisition.config.run.choice == "affinity"
        self._options = GrantOptions(queues=True, affinity=affinity, limits=acquisition.limits)
        self._selected_gpus: tuple[str, ...] = ()
        """The UUIDs of the GPUs that the request names, by the latest scan."""

    def reserve(self) -> Grant | Refusal:
        """Try once to reserve the GPUs."""
        allocator, claim = self._acquisition.allocator, self._acquisition.claim
        options, force = self._options, self._request.force
        if self._request.selectors:
            return allocator.reserve_given(claim, self._select, options=options, force=force)
        return allocator.reserve_count(
            claim, self._request.count, options=options, force=force, choice=self._choice()
        )

    def _choice(self) -> GpuChoice:
        by_profile = ByProfile(self._request.profile)
        if self._acquisition.config.run.export != "index":
            return by_profile
        return NumberedByCuda(by_profile, self._request.count, EXPORT_KEY)

    def feasibility(self, view: NodeView, waiter: Waiter) -> Feasibility | None:
        """Return what a waiter could get by the view's scan; see `WaitedRequest`."""
        force = self._request.force and waiter.owner == self._acquisition.claim.owner
        return scan_feasibility(view, waiter, self._acquisition.config.validation, force=force)

    def _select(self, readings: Sequence[GpuReading]) -> Sequence[str]:
        node = self._acquisition.node
        self._selected_gpus = resolve_gpus(self._request.selectors, readings, node)
        selected = [gpu for gpu in readings if gpu.uuid in self._selected_gpus]
        refuse_mixed_gpus(selected, for_command=self._for_command)
        if self._acquisition.config.run.export == "index":
            refuse_unnumbered(readings, self._selected_gpus, EXPORT_KEY)
        return self._selected_gpus

    def waiter(self) -> Waiter:
        """Return the entry for the queue, after the first attempt was refused."""
        # Imported here once: the process of each later scan is a fork, and inherits it.
        import canhazgpu.probe.nvml.reader  # noqa: F401, PLC0415

        claim = self._acquisition.claim
        return Waiter(
            owner=claim.owner,
            user=claim.user,
            uid=claim.uid,
            count=self._request.count,
            gpus=self._selected_gpus,
            boot_id=boot_id(),
            processes=(self._acquisition.process,),
            pid_namespace=pid_namespace(),
            lease_s=self._acquisition.config.run.lease_s,
            profile=self._request.profile,
        )


def open_acquisition(
    adapters: Adapters, config: Config, claim: Claim, run: RunSettings | None = None
) -> Acquisition:
    """Open this node's ledger and probe for a claim; `run` is that of a run watched elsewhere."""
    node = node_name(config.node, adapters.environ)
    # Before a signal may raise: what is imported halfway stays broken, and then releases no GPU.
    import_client(config.store)
    ledger = adapters.granting_ledger(node, config)
    probe = adapters.open_probe(node, config)
    limits = user_limits(config, adapters.caller())
    watched = adapters.watched() if adapters.watched else None
    recording = RunRecording(watched.files, claim, run) if watched and run else None
    before_commit = recording.write if recording else _record_nothing
    return Acquisition(
        node,
        config,
        open_allocator(node, probe, ledger, before_commit),
        ledger,
        claim,
        limits,
        adapters.process(),
        recording,
        watched.hand_over if watched else None,
    )


def _record_nothing(_gpus: Sequence[str]) -> None:
    """Do nothing before a grant is final."""


def heartbeat_interval_s(config: Config) -> float:
    """Return how often a waiter records a heartbeat, in seconds."""
    return min(config.run.heartbeat_s, config.run.lease_s / HEARTBEATS_PER_LEASE)


def open_allocator(
    node: str,
    probe: GpuProbe,
    ledger: Ledger,
    before_commit: Callable[[Sequence[str]], None] = lambda gpus: None,
) -> GpuAllocator:
    """Return the allocator of this node, with this process's boot and pid namespace."""
    liveness = LivenessContext(boot_id(), pid_namespace(), is_alive, is_stopped)
    return GpuAllocator(node, liveness, probe, ledger, before_commit=before_commit)


def with_processes(claim: Claim, *processes: ProcessId) -> Claim:
    """Return the claim bound to the life of these processes."""
    return replace(
        claim,
        boot_id=boot_id(),
        processes=processes,
        pid_namespace=pid_namespace(),
    )
