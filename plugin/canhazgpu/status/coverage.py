"""Does a reservation cover a process that is seen on its GPU; pure.

Whose a process is cannot always be told: ``hidepid``, another pid namespace, or a process that
ended while it was looked at. Such a process is neither covered nor an intruder. It is most often
the holder's own, and to somebody who sees no other user's processes every GPU would seem intruded.
Nobody is accused of it; it is shown, and counted, as one of unknown owner.
"""

from __future__ import annotations

from dataclasses import dataclass

from canhazgpu.gpu.scan import GpuProcess
from canhazgpu.ledger.values import Claim

UNKNOWN_USER = "unknown"
"""Whose the reservation is of which no record can be read."""

INIT_PID = 1
"""The ancestor of every process in its namespace; who claims it would cover them all."""


@dataclass(frozen=True, slots=True)
class PidNamespace:
    """Where the pids of a scan mean a process: during one boot, in one pid namespace (its inode).

    None where that is not known; it is then taken to be the claim's. Of another node only its own
    hooks know it, and they release what is of an earlier boot before they publish.
    """

    boot_id: str | None = None
    namespace: int | None = None


ANY_PID_NAMESPACE = PidNamespace()


def covers(claim: Claim, process: GpuProcess, space: PidNamespace = ANY_PID_NAMESPACE) -> bool:
    """Tell whether the process is the claim's.

    A job's is whatever runs in its cgroup, as whichever user; outside of any job's cgroup, what
    its user runs. A run's is what descends from it, as whichever user, and what its user runs. A
    person's is what that user runs.
    """
    if claim.job_id is not None and process.job is not None:
        return process.job == f"{claim.type}:{claim.job_id}"
    return _descends_from_claim(claim, process, space) or bool(_is_claim_user(claim, process))


def is_intruder(claim: Claim, process: GpuProcess, space: PidNamespace = ANY_PID_NAMESPACE) -> bool:
    """Tell whether the process is known to be somebody's whom the claim does not cover."""
    if claim.job_id is not None and process.job is not None:
        return not covers(claim, process, space)
    return _is_claim_user(claim, process) is False and not _descends_from_claim(
        claim, process, space
    )


def owner_is_known(process: GpuProcess) -> bool:
    """Tell whether the node told anything of whose the process is."""
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


def _descends_from_claim(claim: Claim, process: GpuProcess, space: PidNamespace) -> bool:
    if not (
        _equal_or_unknown(claim.boot_id, space.boot_id)
        and _equal_or_unknown(claim.pid_namespace, space.namespace)
    ):
        return False
    own = {one.pid for one in claim.processes if one.pid > INIT_PID}
    return not own.isdisjoint((process.pid, *process.ancestors))


def _equal_or_unknown(one: str | int | None, other: str | int | None) -> bool:
    return one is None or other is None or one == other
