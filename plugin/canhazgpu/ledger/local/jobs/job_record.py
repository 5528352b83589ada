"""A job's record on its node, and which attempt and which epilog it is of; pure.

Unknown fields of a record are ignored: another release may have written it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import field, fields
from typing import Any

from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.gpu.assigned import AssignedGpu
from canhazgpu.ledger.owner import JobOwner
from canhazgpu.ledger.record_json import share_from_dict
from canhazgpu.ledger.values import Share

FORMAT = 1
"""Format of the JSON records; a record without ``format`` has this one."""


@dataclass(frozen=True, slots=True)
class JobRecord:
    """The record of a job's latest attempt on this node.

    `epilogs_owed` counts the earlier attempts on this node whose epilogs have not run yet: so
    many epilogs come that do not end this attempt. `ended` is set when the attempt is over and
    its release is not in the ledger yet. `began_ticks` is the attempt's begin in clock ticks since
    the node's boot, the unit of process start times in /proc; None if it is not known. `share` is
    the part of each GPU that the job has, None where it has them alone. `run_id` is the scheduler's
    own name of the attempt, which no other attempt has; empty if it gives none. `epilog` is the run
    of the epilog that was noted last: one that is carried out twice counts once. `is_decided`: its
    prolog ran to its end and left the job without GPUs of canhazgpu's, by the site's policy.
    """

    owner: JobOwner
    user: str
    boot_id: str | None
    gpus: tuple[AssignedGpu, ...] = ()
    epilogs_owed: int = 0
    ended: bool = False
    began_ticks: int | None = field(default=None, compare=False)
    share: Share | None = None
    run_id: str = ""
    epilog: str = field(default="", compare=False)
    is_decided: bool = field(default=False, compare=False)


def is_same_attempt(
    known: JobRecord,
    owner: JobOwner,
    user: str,
    positions: Collection[int] | None,
    run_id: str,
) -> bool:
    """Return whether the record is of this attempt."""
    recorded = {gpu.position for gpu in known.gpus}
    other_gpus = bool(recorded) and positions is not None and recorded != set(positions)
    other_run = bool(known.run_id and run_id) and known.run_id != run_id
    is_same_job = known.owner == owner and known.user == user
    return is_same_job and not known.ended and not other_gpus and not other_run


def is_ended_by(known: JobRecord, run_id: str, *, last: bool) -> bool:
    """Return whether the recorded attempt is the one whose epilog this is."""
    if known.run_id and run_id:
        return known.run_id == run_id
    return last or known.epilogs_owed == 0


def is_not_newer(owner: JobOwner, known: JobOwner) -> bool:
    """Return whether the owner's attempt is no later one than the known attempt."""
    return owner.cluster == known.cluster and owner.attempt <= known.attempt


def record_from_dict(data: dict[str, Any]) -> JobRecord:
    """Return the record with this content; raises one of `RECORD_ERRORS`."""
    if data.get("format", FORMAT) != FORMAT:
        raise ValueError("a record of another release")
    owner = JobOwner(**_known_fields(JobOwner, data.pop("owner")))
    gpus = tuple(AssignedGpu(**_known_fields(AssignedGpu, gpu)) for gpu in data.pop("gpus"))
    share = share_from_dict(data.pop("share", None))
    record = JobRecord(owner=owner, gpus=gpus, share=share, **_known_fields(JobRecord, data))
    if type(record.epilogs_owed) is not int or type(record.ended) is not bool:
        raise TypeError("a record's count of epilogs and its end have their types")
    if record.began_ticks is not None and type(record.began_ticks) is not int:
        raise TypeError("the time when an attempt began is a number of ticks")
    if type(record.is_decided) is not bool:
        raise TypeError("whether a policy decided about an attempt is yes or no")
    if not isinstance(record.run_id, str) or not isinstance(record.epilog, str):
        raise TypeError("the names of an attempt and of its epilog are text")
    if type(owner.attempt) is not int or not isinstance(owner.cluster, str):
        raise TypeError("an owner's attempt is a number, and its cluster text")
    if not isinstance(record.user, str) or not isinstance(owner.job_id, str):
        raise TypeError("a job's user and its number are text")
    return record


def _known_fields(
    kind: type[JobOwner | AssignedGpu | JobRecord], data: dict[str, Any]
) -> dict[str, Any]:
    """Return the items of `data` that are fields of the dataclass `kind`."""
    return {one.name: data[one.name] for one in fields(kind) if one.name in data}
