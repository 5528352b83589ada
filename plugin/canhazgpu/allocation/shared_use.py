"""The use of a GPU by the jobs that share it, which is no obstacle to a further share; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from canhazgpu.allocation.coverage import ANY_PID_NAMESPACE, covers
from canhazgpu.allocation.intruders import is_mps_server_of, other_processes
from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.gpu.scan import GpuProcess, GpuReading, known_memory_mb
from canhazgpu.gpu.usage import Usage, UsagePolicy, judge_usage
from canhazgpu.ledger.co_holders import shares_with
from canhazgpu.ledger.port import Observation
from canhazgpu.ledger.values import Claim, NodeView, Reservation


@dataclass(frozen=True, slots=True)
class SharedUse:
    """The use of one GPU in use; `users` are the owners (tokens) whose use it is.

    `users` is None if somebody else uses the GPU, too. `processes` are those of the owners.
    """

    users: frozenset[str] | None
    processes: tuple[GpuProcess, ...] = ()


def observed_for_share(claim: Claim, observation: Observation, view: NodeView) -> Observation:
    """Return the observation with what the jobs that share a GPU with the claim do there.

    Their processes do not count as use. For a claim without a share nothing changes.
    """
    if claim.share is None:
        return observation
    uses = {
        gpu.uuid: shared_use(claim, gpu, co_holders_of(claim, gpu.uuid, view), observation.policy)
        for gpu in observation.scan.gpus
        if gpu.uuid in observation.in_use
    }
    covered = {gpu: use.users for gpu, use in uses.items() if use.users is not None}
    pids = {process.pid for use in uses.values() for process in use.processes}
    return replace(observation, covered=covered, ignored=observation.ignored | pids)


def co_holders_of(claim: Claim, gpu: str, view: NodeView) -> tuple[Reservation, ...]:
    """Return the reservations of the other jobs with which the claim may share the GPU."""
    held = view.reservations.get(gpu)
    if held is None or not shares_with(claim, held):
        return ()
    return tuple(one for one in held.holders if one.claim.owner != claim.owner)


def shared_use(
    claim: Claim, gpu: GpuReading, holders: Sequence[Reservation], policy: UsagePolicy
) -> SharedUse:
    """Return whose the use of a GPU in use is.

    A process of unknown owner, and memory that no process shows, may be any holder's: then all
    of them are the users. Without holders only an MPS server may be there, which is nobody's use.
    """
    if not holders:
        return SharedUse(None if _is_used_beside_mps(claim, gpu, policy) else frozenset())
    claims = [one.claim for one in holders]
    owners = {
        process: next((one.owner for one in claims if covers(one, process)), "")
        for process in policy.counted_processes(gpu.processes)
    }
    of_holders = tuple(process for process, owner in owners.items() if owner)
    others = other_processes(claims, gpu.processes, policy, ANY_PID_NAMESPACE)
    if others.intruders:
        return SharedUse(None, of_holders)
    if of_holders and len(of_holders) == len(owners):
        return SharedUse(frozenset(owners.values()), of_holders)
    return SharedUse(frozenset(one.owner for one in claims), of_holders)


def _is_used_beside_mps(claim: Claim, gpu: GpuReading, policy: UsagePolicy) -> bool:
    servers = [one for one in gpu.processes if is_mps_server_of([claim], one)]
    used_mb = gpu.memory_used_mb
    rest = replace(
        gpu,
        processes=tuple(one for one in gpu.processes if one not in servers),
        memory_used_mb=None if used_mb is None else max(used_mb - known_memory_mb(servers), 0),
    )
    return judge_usage(rest, policy) is not Usage.FREE
