"""Parse the environment of a prolog or epilog (source: Slurm's Prolog and Epilog Guide)."""

from __future__ import annotations

from collections.abc import Mapping

from canhazgpu.conflict.requeue_comment import requeues_in_comment
from canhazgpu.errors import InputError
from canhazgpu.gpu.ids import parse_scheduler_numbers
from canhazgpu.ledger.owner import JobOwner
from canhazgpu.ledger.values import Share
from canhazgpu.schedulers.port import JobContext
from canhazgpu.schedulers.slurm import environment as names
from canhazgpu.schedulers.slurm.conf.cluster_name import owner_cluster_name
from canhazgpu.schedulers.slurm.time_limit import limited_end

MAX_UID = 2**32 - 2


def parse_job_context(environ: Mapping[str, str], node: str) -> JobContext:
    """Return the job of this hook; raises `InputError` that names an invalid variable.

    In a prolog the restart count is this attempt's. In the epilog of a requeued job it is already
    the next attempt's, so an epilog takes the attempt from the node's record of the job. Its
    SLUID is its own run's. The comment is the one at the job's launch, the same on all its nodes.
    """
    gpus = environ.get(names.JOB_GPUS, "")
    uid = _number(environ, names.JOB_UID, maximum=MAX_UID)
    attempt = _number(environ, names.RESTART_COUNT, default=0)
    return JobContext(
        owner=JobOwner(
            cluster=owner_cluster_name(environ.get(names.CLUSTER_NAME, "")) or "cluster",
            job_id=str(_number(environ, names.JOB_ID)),
            attempt=attempt,
        ),
        node=node,
        user=environ.get(names.JOB_USER) or str(uid),
        uid=uid,
        positions=tuple(
            number.value
            for number in (parse_scheduler_numbers(gpus, names.JOB_GPUS) if gpus else ())
        ),
        ends_at=limited_end(
            _time(environ, names.JOB_START_TIME), _time(environ, names.JOB_END_TIME)
        ),
        name=environ.get(names.JOB_NAME),
        partition=environ.get(names.JOB_PARTITION, ""),
        requeues=requeues_in_comment(environ.get(names.JOB_COMMENT, ""), attempt),
        run_id=environ.get(names.JOB_SLUID, ""),
        share=_mps_share(environ),
        follows=_follows(environ, node),
    )


def _follows(environ: Mapping[str, str], node: str) -> bool:
    """Return whether another node is the first of the job's nodes."""
    nodes = environ.get(names.JOB_NODES) or environ.get(names.JOB_NODES_OLD, "")
    if "[" not in nodes and "," not in nodes:
        return False  # one node, by whatever name
    from canhazgpu.schedulers.slurm.conf.hostlist import first_host  # noqa: PLC0415 - few jobs have several nodes

    return first_host(nodes) != node


def _time(environ: Mapping[str, str], name: str) -> float | None:
    return float(_number(environ, name, default=0)) or None


def _mps_share(environ: Mapping[str, str]) -> Share | None:
    """Return the share; None for anything but a percentage, as nodes without mps may have it."""
    text = environ.get(names.MPS_PERCENTAGE, "")
    is_number = text.isascii() and text.isdecimal() and len(text) <= 3
    return Share("mps", int(text), 100) if is_number and int(text) <= 100 else None


def _number(
    environ: Mapping[str, str], name: str, default: int | None = None, maximum: int = 2**53
) -> int:
    text = environ.get(name, "")
    if not text and default is not None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and int(text) <= maximum):
        raise InputError(f"{name}={text[:40]!r} is not a number; slurmd sets it for its hooks")
    return int(text)
