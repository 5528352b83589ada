"""The one service that commands and hooks speak to: scan, judge, reserve, look again, release.

It runs in the process that needs it and drives two ports, a `GpuProbe` and a `Ledger`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from canhazgpu.gpu.scan import GpuReading
from canhazgpu.gpu.usage import processes_text, users_of
from canhazgpu.ledger.port import Ledger, Observation
from canhazgpu.ledger.values import Blocked, Claim, Granted, JobOwner, Queued, Reservation, Short
from canhazgpu.probe.port import GpuProbe, PendingScan

MAX_ROUNDS = 4
"""Scans per reservation: each further one follows a change that somebody else made meanwhile."""

Selection = Callable[[Sequence[GpuReading]], Sequence[str]]
"""Names the wanted GPUs (UUIDs) once the node's GPUs are known; may raise `InputError`."""


@dataclass(frozen=True, slots=True)
class Grant:
    """The GPUs an owner now holds, as the scan before the grant found them."""

    gpus: tuple[GpuReading, ...]
    node_gpus: tuple[GpuReading, ...]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Nothing was granted; `reason` is one sentence for the user, naming who is in the way."""

    reason: str


class GpuService:
    """Reserve and release GPUs of one node, the one this process runs on."""

    def __init__(
        self,
        node: str,
        boot_id: str | None,
        probe: GpuProbe,
        ledger: Ledger,
        is_gone: Callable[[Reservation], bool] = lambda reservation: False,
    ) -> None:
        """Take the node's ports; `is_gone` tells, asked on a conflict only, of a dead owner."""
        self._is_gone = is_gone
        self._node = node
        self._boot_id = boot_id
        self._probe = probe
        self._ledger = ledger

    def reserve_given(
        self, claim: Claim, select: Selection, first_scan: PendingScan | None = None
    ) -> Grant | Refusal:
        """Reserve exactly the selected GPUs, or none; `first_scan` may be under way already.

        Raises `StoreError`, and `InputError` from `select`.
        """

        def attempt(observation: Observation) -> Granted | Blocked | Queued:
            wanted = select(observation.scan.gpus)
            return self._ledger.reserve_given(claim, wanted, observation)

        return self._reserve(claim, attempt, first_scan)

    def reserve_count(
        self, claim: Claim, count: int, first_scan: PendingScan | None = None
    ) -> Grant | Refusal:
        """Reserve `count` clean GPUs, the least recently released first, or none."""

        def attempt(observation: Observation) -> Granted | Short | Queued:
            return self._ledger.reserve_count(claim, count, observation)

        return self._reserve(claim, attempt, first_scan)

    def release(self, owner: str, reason: str) -> list[str]:
        """Release all the owner holds on this node; returns the UUIDs. Raises `StoreError`."""
        return self._ledger.release(self._node, owner, reason)

    def release_job(self, last: JobOwner, reason: str) -> list[str]:
        """Release what this job holds here by any attempt up to `last`; returns the UUIDs.

        For attempts of which the node has no record, say after it lost its records in a reboot.
        """
        held = self._reservations().values()
        owners = {one.claim.owner for one in held if last.covers(one.claim.owner)}
        return [uuid for owner in sorted(owners) for uuid in self.release(owner, reason)]

    def publish(self) -> None:
        """Scan, and publish what was found for everyone. Raises `StoreError`."""
        self._ledger.publish_scan(self._probe.start().observe())

    def _reserve(
        self,
        claim: Claim,
        attempt: Callable[[Observation], Granted | Blocked | Short | Queued],
        first_scan: PendingScan | None,
    ) -> Grant | Refusal:
        refusal = Refusal(f"the GPUs of {self._node} kept changing hands; try again")
        pending = first_scan or self._probe.start()
        for _ in range(MAX_ROUNDS):
            observation = pending.observe()
            if observation.scan.fault is not None:
                return Refusal(f"{self._node}: {observation.scan.fault}")
            answer = attempt(observation)
            if isinstance(answer, Granted):
                intruded = () if answer.repeated else self._intruded(answer)
                if not intruded:
                    return _grant(answer, observation)
                self._ledger.release(self._node, claim.owner, "in use at the second look")
                refusal = Refusal("; ".join(_intruder_text(gpu, self._node) for gpu in intruded))
            elif isinstance(answer, Queued):
                return Refusal(f"others wait for GPUs of {self._node}: {answer.position - 1}")
            elif not _stale(answer) and not self._reap():
                return self._refusal(answer, observation)
            pending = self._probe.start()
        return refusal

    def _reservations(self) -> Mapping[str, Reservation]:
        (view,) = self._ledger.look([self._node])
        return view.reservations

    def _reap(self) -> list[str]:
        """Release what dead owners still hold, of an earlier boot or gone; returns the UUIDs."""
        reasons: dict[str, str] = {}
        for one in self._reservations().values():
            if self._is_of_earlier_boot(one):
                reasons[one.claim.owner] = "node rebooted"
            elif one.claim.owner not in reasons and self._is_gone(one):
                reasons[one.claim.owner] = "owner gone"
        return [
            uuid
            for owner, reason in sorted(reasons.items())
            for uuid in self._ledger.release(self._node, owner, reason)
        ]

    def _is_of_earlier_boot(self, reservation: Reservation) -> bool:
        recorded = reservation.claim.boot_id
        return None not in (recorded, self._boot_id) and recorded != self._boot_id

    def _intruded(self, granted: Granted) -> tuple[GpuReading, ...]:
        """Look once more at the GPUs just granted: nobody gets one that was in use at the grant."""
        second = self._probe.start().observe()
        unfit = second.in_use | second.unknown
        seen = second.scan.by_uuid()
        return tuple(
            seen.get(uuid) or _vanished(uuid)
            for uuid in granted.gpus
            if uuid in unfit or uuid not in seen
        )

    def _refusal(self, answer: Blocked | Short, observation: Observation) -> Refusal:
        if isinstance(answer, Blocked):
            reading = observation.scan.by_uuid().get(answer.gpu)
            return Refusal(_blocked_text(answer, reading or _vanished(answer.gpu), self._node))
        reserved = self._reservations()
        intruders = [
            gpu
            for gpu in observation.scan.gpus
            if gpu.uuid in observation.in_use and gpu.uuid not in reserved
        ]
        texts = [short_text(answer), *(_intruder_text(gpu, self._node) for gpu in intruders)]
        return Refusal("; ".join(texts))


def short_text(short: Short) -> str:
    """Return the sentence users know for too few GPUs."""
    text = f"Not enough GPUs available. Requested: {short.requested}, Available: {short.available}"
    if short.unreserved:
        text += (
            f" ({short.unreserved} GPUs in use without reservation"
            " - run 'canhazgpu status' for details)"
        )
    return text


def _grant(granted: Granted, observation: Observation) -> Grant:
    seen = observation.scan.by_uuid()
    gpus = tuple(seen.get(uuid) or _vanished(uuid) for uuid in granted.gpus)
    return Grant(gpus, observation.scan.gpus)


def _vanished(uuid: str) -> GpuReading:
    return GpuReading(-1, uuid, None, "", None, None, fault="the driver no longer shows it")


def _stale(answer: Blocked | Short) -> bool:
    """Tell whether a fresh scan could change the answer."""
    if isinstance(answer, Blocked):
        return answer.why == "stale"
    return answer.available + answer.stale >= answer.requested > 0


def _name(gpu: GpuReading, node: str) -> str:
    index = f"GPU {gpu.index}" if gpu.index >= 0 else "GPU"
    return f"{index} ({gpu.uuid}) on {node}"


def _intruder_text(gpu: GpuReading, node: str) -> str:
    if gpu.fault is not None:
        return f"{_name(gpu, node)} cannot be read: {gpu.fault}"
    used = "memory unknown" if gpu.memory_used_mb is None else f"{gpu.memory_used_mb}MB used"
    if not gpu.processes:
        return f"{_name(gpu, node)} is in use WITHOUT RESERVATION: {used} by no process shown"
    return (
        f"{_name(gpu, node)} is in use by {users_of(gpu.processes)} WITHOUT RESERVATION:"
        f" {used} by {processes_text(gpu.processes)}"
    )


def _blocked_text(blocked: Blocked, gpu: GpuReading, node: str) -> str:
    if blocked.why == "reserved" and blocked.holder is not None:
        return f"{_name(gpu, node)} is reserved by {holder_text(blocked.holder)}"
    if blocked.why == "unreserved":
        return _intruder_text(gpu, node)
    if blocked.why == "unknown":
        return f"{_name(gpu, node)} cannot be read: {gpu.fault or 'its state is unknown'}"
    return f"{_name(gpu, node)} is {blocked.why}"


def holder_text(holder: Reservation) -> str:
    """Return who holds a GPU: ``alice (slurm job 12)``."""
    claim = holder.claim
    what = f"{claim.type} job {claim.job_id}" if claim.job_id else claim.type
    return f"{claim.user} ({what})"
