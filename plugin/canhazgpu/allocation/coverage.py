"""Does a reservation cover a process on its GPU; pure.

The owner of a process is not always known: ``hidepid`` hides it, it is in another pid namespace, or
it ended during the scan. Such a process is neither covered nor an intruder. It is most often the
holder's own, and under ``hidepid`` every reserved GPU would otherwise seem to have an intruder. It
is shown and counted as a process of unknown owner.
"""

from __future__ import annotations

from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.gpu.process_job import is_unidentified
from canhazgpu.gpu.scan import GpuProcess
from canhazgpu.ledger.values import Claim

UNKNOWN_USER = "unknown"
"""The user of a reservation whose record cannot be read."""

INIT_PID = 1
"""The ancestor of every process in its namespace: a claim with this pid would cover them all."""


@dataclass(frozen=True, slots=True)
class PidNamespace:
    """The boot and the pid namespace (its inode) in which the pids of a scan are valid.

    None means that it is not known; it then counts as equal to the claim's. For another node it is
    never known: that node's own hooks release what is of an earlier boot before they publish.
    """

    boot_id: str | None = None
    namespace: int | None = None


ANY_PID_NAMESPACE = PidNamespace()


def covers(
    claim: Claim, process: GpuProcess, pid_namespace: PidNamespace = ANY_PID_NAMESPACE
) -> bool:
    """Tell whether the process belongs to the claim.

    To a job belong the processes in its cgroup, of any user, and the processes of its user outside
    of any job's cgroup. To a run belong its descendants, of any user, and the processes of its
    user. To a manual reservation belong the processes of its user.
    """
    if claim.job_id is not None and process.job is not None and not is_unidentified(process.job):
        return process.job == f"{claim.type}:{claim.job_id}"
    return _descends_from_claim(claim, process, pid_namespace) or bool(
        _is_claim_user(claim, process)
    )


def is_intruder(
    claim: Claim, process: GpuProcess, pid_namespace: PidNamespace = ANY_PID_NAMESPACE
) -> bool:
    """Tell whether the owner of the process is known and the claim does not cover it.

    A process in an unidentified job may be in the very job that holds the GPU.
    """
    if claim.job_id is not None and process.job is not None:
        return not is_unidentified(process.job) and not covers(claim, process, pid_namespace)
    return _is_claim_user(claim, process) is False and not _descends_from_claim(
        claim, process, pid_namespace
    )


def may_be_intruder(
    claim: Claim, process: GpuProcess, pid_namespace: PidNamespace = ANY_PID_NAMESPACE
) -> bool:
    """Tell whether only its unidentified job keeps the process from being an intruder."""
    return (
        claim.job_id is not None
        and is_unidentified(process.job)
        and not covers(claim, process, pid_namespace)
    )


def owner_is_known(process: GpuProcess) -> bool:
    """Tell whether anything of the owner of the process is known."""
    return any(one is not None for one in (process.uid, process.user, process.job))


def same_user(
    uid: int | None, user: str | None, other_uid: int | None, other_user: str | None
) -> bool | None:
    """Compare two users, by uid where both are known, else by name; None where neither is."""
    if uid is not None and other_uid is not None:
        return uid == other_uid
    if user is not None and other_user is not None:
        return user == other_user
    return None


def _is_claim_user(claim: Claim, process: GpuProcess) -> bool | None:
    user = None if claim.uid is None and claim.user == UNKNOWN_USER else claim.user
    return same_user(claim.uid, user, process.uid, process.user)


def _descends_from_claim(claim: Claim, process: GpuProcess, pid_namespace: PidNamespace) -> bool:
    if not (
        _equal_or_unknown(claim.boot_id, pid_namespace.boot_id)
        and _equal_or_unknown(claim.pid_namespace, pid_namespace.namespace)
    ):
        return False
    own = {one.pid for one in claim.processes if one.pid > INIT_PID}
    return not own.isdisjoint((process.pid, *process.ancestors))


def _equal_or_unknown(one: str | int | None, other: str | int | None) -> bool:
    return one is None or other is None or one == other
