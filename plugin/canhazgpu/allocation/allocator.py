"""Reserve and release the GPUs of one node: scan, judge, reserve, scan again.

It runs in the process that needs the GPUs and uses two ports, a `GpuProbe` and a `Ledger`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from canhazgpu.allocation.gpu_choice import WHOLE_GPUS, GpuChoice
from canhazgpu.allocation.liveness import LivenessContext, death_reason, queue_removal_reason
from canhazgpu.allocation.refusal import (
    Refusal,
    RefusalKind,
    build_refusal,
    queued_refusal,
    unreserved_use_refusal,
    without_ignored_processes,
)
from canhazgpu.errors import DeadlineError, VoidGrantError
from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.gpu.scan import GpuReading, missing_gpu_reading
from canhazgpu.ledger.grant_answers import (
    BlockedGpu,
    CommitRefusal,
    GrantedGpus,
    QueuePosition,
    TooFewGpus,
)
from canhazgpu.ledger.owner import JobOwner
from canhazgpu.ledger.port import JOB_GRANT_OPTIONS, GrantOptions, Ledger, Observation
from canhazgpu.ledger.release_reasons import IN_USE_AT_SECOND_LOOK
from canhazgpu.ledger.values import Claim, NodeView, Reservation
from canhazgpu.probe.port import GpuProbe, PendingScan

MAX_SCANS = 4
"""Scans per reservation. One more is made where others changed the ledger or the GPUs meanwhile."""

SelectGpus = Callable[[Sequence[GpuReading]], Sequence[str]]
"""Returns the wanted GPUs (UUIDs) out of the node's GPUs; may raise `InputError`."""


@dataclass(frozen=True, slots=True)
class Grant:
    """The GPUs that an owner now holds, as the scan before the grant read them.

    `node_gpus` are all GPUs of the node. `in_use` are the granted ones in unreserved use: the
    owner asked for them by force.
    """

    gpus: tuple[GpuReading, ...]
    node_gpus: tuple[GpuReading, ...]
    in_use: frozenset[str] = frozenset()


class GpuAllocator:
    """Reserves and releases GPUs of the node that this process runs on."""

    def __init__(
        self,
        node: str,
        liveness: LivenessContext,
        probe: GpuProbe,
        ledger: Ledger,
        is_gone: Callable[[Reservation], bool] = lambda reservation: False,
        before_commit: Callable[[Sequence[str]], None] = lambda gpus: None,
    ) -> None:
        """Take the node's ports.

        `is_gone` finds owners that are dead although `liveness` does not show it: jobs that the
        scheduler does not know any more. It is called on a conflict only. `before_commit` is called
        with the GPUs (UUIDs) of a grant before it is made final, and may be called for one that
        then does not stand.
        """
        self._before_commit = before_commit
        self._is_owner_gone = is_gone
        self._node = node
        self._liveness = liveness
        self._probe = probe
        self._ledger = ledger

    @property
    def node(self) -> str:
        """The node's name."""
        return self._node

    def reserve_given(
        self,
        claim: Claim,
        select: SelectGpus,
        first_scan: PendingScan | None = None,
        *,
        options: GrantOptions = JOB_GRANT_OPTIONS,
        force: bool = False,
    ) -> Grant | Refusal:
        """Reserve exactly the selected GPUs, or none; `first_scan` is a scan already started.

        With `force`, GPUs in unreserved use are granted too. Raises `StoreError`, `InputError` from
        `select`, and `VoidGrantError` or `DeadlineError` for a grant that does not stand.
        """

        def attempt(
            observation: Observation, on_intent: Callable[[], None]
        ) -> GrantedGpus | BlockedGpu | QueuePosition:
            wanted = select(observation.scan.gpus)
            told = replace(options, on_intent=on_intent)
            return self._ledger.reserve_given(claim, wanted, observation, told)

        return self._reserve(claim, attempt, first_scan, force=force)

    def reserve_count(
        self,
        claim: Claim,
        count: int,
        first_scan: PendingScan | None = None,
        *,
        options: GrantOptions = JOB_GRANT_OPTIONS,
        force: bool = False,
        choice: GpuChoice = WHOLE_GPUS,
    ) -> Grant | Refusal:
        """Reserve `count` clean GPUs of the choice, in the order of the options, or none.

        With `force`, GPUs in unreserved use are granted where there are too few clean ones. Raises
        `InputError` from `choice`.
        """

        def attempt(
            observation: Observation, on_intent: Callable[[], None]
        ) -> GrantedGpus | TooFewGpus | QueuePosition:
            candidates = choice.candidates(observation.scan.gpus)
            among = replace(options, candidates=candidates, on_intent=on_intent)
            return self._ledger.reserve_count(claim, count, observation, among)

        return self._reserve(claim, attempt, first_scan, force=force, choice=choice)

    def release(self, owner: str, reason: str) -> list[str]:
        """Release all GPUs of the owner on this node; return their UUIDs. Raises `StoreError`."""
        return self._ledger.release(self._node, owner, reason)

    def release_job(self, last: JobOwner, reason: str) -> list[str]:
        """Release the GPUs of this job's attempts up to `last`; return their UUIDs.

        For attempts of which the node has no record, for example because a reboot deleted it.
        """
        held = self._node_view().all_reservations()
        owners = {one.claim.owner for one in held if last.covers(one.claim.owner)}
        return [uuid for owner in sorted(owners) for uuid in self.release(owner, reason)]

    def scan_and_publish(self) -> None:
        """Scan, and publish the scan in the ledger. Raises `StoreError`."""
        self._ledger.publish_scan(self._probe.start().observe())

    def refresh_scan(self) -> None:
        """Scan and publish, as `scan_and_publish`, but never a scan that failed."""
        observation = self._probe.start().observe()
        if observation.scan.fault is None:
            self._ledger.publish_scan(observation)

    def reaped_view(self) -> NodeView:
        """Return the ledger's view of the node without dead owners and waiters.

        GPUs of dead owners are released, and dead waiters are removed from the queue.
        """
        view = self._node_view()
        changed = bool(self._release_dead_owners(view)) | bool(self._remove_dead_waiters(view))
        return self._node_view() if changed else view

    def _remove_dead_waiters(self, view: NodeView) -> dict[str, str]:
        """Remove dead and stopped waiters from the queue; return their owners with the reasons."""
        dead = {
            waiter.owner: reason
            for waiter in view.queue
            if (
                reason := queue_removal_reason(
                    waiter, view.read_at - waiter.renewed_at, self._liveness
                )
            )
        }
        for owner, reason in dead.items():
            self._ledger.leave_queue(self._node, [owner], reason)
        return dead

    def _reserve(
        self,
        claim: Claim,
        attempt: LedgerAttempt,
        first_scan: PendingScan | None,
        *,
        force: bool,
        choice: GpuChoice = WHOLE_GPUS,
    ) -> Grant | Refusal:
        refusal = Refusal(f"the GPUs of {self._node} kept changing hands; try again")
        pending = first_scan or self._probe.start()
        for _ in range(MAX_SCANS):
            observation = self._observe_for(claim, pending)
            if observation.scan.fault is not None:
                return Refusal(f"{self._node}: {observation.scan.fault}", kind=RefusalKind.FAULT)
            second_look = _SecondLook(self._probe)
            answer = attempt(observation, second_look.begin)
            forced: frozenset[str] = frozenset()
            if force and _is_refused_for_unreserved_use(answer):
                forced = observation.in_use
                cleared = replace(pending.observe(), in_use=frozenset())
                answer = attempt(cleared, second_look.begin)
            if isinstance(answer, GrantedGpus):
                intruded = (
                    ()
                    if answer.repeated
                    else self._find_intruders(claim, answer, forced, second_look.scan())
                )
                if not intruded:
                    self._before_commit(answer.gpus)
                    self._commit(claim.owner)
                    return _build_grant(answer, observation, forced)
                self._ledger.release(self._node, claim.owner, IN_USE_AT_SECOND_LOOK)
                refusal = unreserved_use_refusal(intruded, self._node)
            elif isinstance(answer, QueuePosition):
                if not self._remove_dead_waiters(self._node_view()):
                    return queued_refusal(answer, self._node)
            elif not _may_change_with_new_scan(answer) and not self._release_dead_owners(
                self._node_view()
            ):
                return build_refusal(answer, observation, self._node_view(), choice)
            pending = self._probe.start()
        return refusal

    def _commit(self, owner: str) -> None:
        """Make the grant final; raises an error where it does not stand."""
        refusal = self._ledger.commit(owner)
        if refusal in (CommitRefusal.FENCED, CommitRefusal.PEER_GONE):
            raise VoidGrantError(refusal.value)
        if refusal is not None:
            raise DeadlineError(f"the grant of {self._node}'s GPUs is undone: {refusal.value}")

    def _node_view(self) -> NodeView:
        (view,) = self._ledger.read_nodes([self._node])
        return view

    def _release_dead_owners(self, view: NodeView) -> list[str]:
        """Release the GPUs of dead owners; return their UUIDs."""
        reasons: dict[str, str] = {}
        for one in view.all_reservations():
            silent_s = view.read_at - (one.renewed_at or one.granted_at)
            if reason := death_reason(one.claim, silent_s, self._liveness):
                reasons[one.claim.owner] = reason
            elif one.claim.owner not in reasons and self._is_owner_gone(one):
                reasons[one.claim.owner] = "owner gone"
        return [
            uuid
            for owner, reason in sorted(reasons.items())
            for uuid in self._ledger.release(self._node, owner, reason)
        ]

    def _observe_for(self, claim: Claim, pending: PendingScan) -> Observation:
        """Return the scan, with the use by jobs that the claim may share GPUs with."""
        observation = pending.observe()
        if claim.share is None or not observation.in_use:
            return observation
        from canhazgpu.allocation.shared_use import observed_for_share  # noqa: PLC0415 - most claims have no share

        return observed_for_share(claim, observation, self._node_view())

    def _find_intruders(
        self, claim: Claim, granted: GrantedGpus, forced: frozenset[str], second_scan: PendingScan
    ) -> tuple[GpuReading, ...]:
        """Return the granted GPUs that a second scan finds in use: they were so at the grant."""
        second = self._observe_for(claim, second_scan)
        unfit = (second.in_use - second.covered.keys() - forced) | second.unknown
        seen = second.scan.by_uuid()
        return tuple(
            without_ignored_processes(seen.get(uuid) or missing_gpu_reading(uuid), second)
            for uuid in granted.gpus
            if uuid in unfit or uuid not in seen
        )


class _SecondLook:
    """The scan after the GPUs were withheld from others, by an intent or by the grant itself."""

    def __init__(self, probe: GpuProbe) -> None:
        self._probe = probe
        self._begun: PendingScan | None = None

    def begin(self) -> None:
        """Begin it, while the grant is confirmed; anew for another choice of GPUs."""
        self._begun = self._probe.start()

    def scan(self) -> PendingScan:
        """Return it; it begins now where no intent came before the grant."""
        return self._begun or self._probe.start()


LedgerAttempt = Callable[
    [Observation, Callable[[], None]], GrantedGpus | BlockedGpu | TooFewGpus | QueuePosition
]


def _is_refused_for_unreserved_use(
    answer: GrantedGpus | BlockedGpu | TooFewGpus | QueuePosition,
) -> bool:
    if isinstance(answer, BlockedGpu):
        return answer.why == "unreserved"
    return isinstance(answer, TooFewGpus) and answer.unreserved > 0


def _build_grant(granted: GrantedGpus, observation: Observation, forced: frozenset[str]) -> Grant:
    seen = observation.scan.by_uuid()
    gpus = tuple(seen.get(uuid) or missing_gpu_reading(uuid) for uuid in granted.gpus)
    return Grant(gpus, observation.scan.gpus, forced & set(granted.gpus))


def _may_change_with_new_scan(answer: BlockedGpu | TooFewGpus) -> bool:
    """Tell whether a new scan could change the answer."""
    if isinstance(answer, BlockedGpu):
        return answer.why == "stale"
    return answer.available + answer.stale >= answer.requested > 0
