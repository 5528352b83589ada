"""The processes on a reserved GPU that are not its owner's; pure.

The memory threshold holds for them together, as it does for a GPU without a reservation: the few
megabytes of a display server are no use. The owner's memory does not count.
"""

from __future__ import annotations

from collections.abc import Sequence

from canhazgpu.allocation.coverage import PidNamespace, covers, is_intruder, may_be_intruder
from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.gpu.scan import GpuProcess
from canhazgpu.gpu.usage import UsagePolicy
from canhazgpu.ledger.values import Claim

ROOT_UID = 0


@dataclass(frozen=True, slots=True)
class OtherProcesses:
    """Processes on a reserved GPU that no reservation of it covers.

    Each is in one of: `intruders`, `unidentified` (only their job could tell, and its id is not
    known), and `below_threshold`, the same kinds where their memory is no use.
    """

    intruders: tuple[GpuProcess, ...] = ()
    unidentified: tuple[GpuProcess, ...] = ()
    below_threshold: tuple[GpuProcess, ...] = ()


NO_OTHERS = OtherProcesses()


def is_mps_server_of(claims: Sequence[Claim], process: GpuProcess) -> bool:
    """Tell whether the process is the MPS server of a GPU that these claims share.

    Root or one of the sharing users runs it. It holds the GPU's memory of its clients, and stays
    from one job to the next.
    """
    uids = {ROOT_UID, *(claim.uid for claim in claims)}
    return (
        process.is_mps_server
        and process.uid in uids
        and any(claim.share is not None for claim in claims)
    )


def other_processes(
    claims: Sequence[Claim],
    processes: Sequence[GpuProcess],
    policy: UsagePolicy,
    pid_namespace: PidNamespace,
) -> OtherProcesses:
    """Sort the processes of a GPU that these claims hold; ignored processes are left out."""
    if all([any([covers(claim, one, pid_namespace) for claim in claims]) for one in processes]):
        return NO_OTHERS
    uncovered = [
        one
        for one in policy.counted_processes(tuple(processes))
        if not any(covers(claim, one, pid_namespace) for claim in claims)
        and not is_mps_server_of(claims, one)
    ]
    unidentified = [
        one
        for one in uncovered
        if any(may_be_intruder(claim, one, pid_namespace) for claim in claims)
    ]
    strangers = [
        one for one in uncovered if all(is_intruder(claim, one, pid_namespace) for claim in claims)
    ]
    intruders = strangers if policy.is_use(strangers) else []
    doubtful = unidentified if policy.is_use([*strangers, *unidentified]) else []
    return OtherProcesses(
        tuple(intruders),
        tuple(doubtful),
        tuple(
            one
            for one in (*strangers, *unidentified)
            if one not in intruders and one not in doubtful
        ),
    )
