"""What the task prolog exports for a job; pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from canhazgpu.ledger.local.jobs.task_record import export_words

if TYPE_CHECKING:
    from canhazgpu.config.grant_sections import SlurmConfig
    from canhazgpu.gpu.assigned import AssignedGpu


def task_export(
    slurm: SlurmConfig,
    gpus: Sequence[AssignedGpu],
    slurms_gpus: Sequence[AssignedGpu] | None,
    *,
    constrained: bool,
    opens_others: bool = False,
) -> list[str]:
    """Return the words for what the tasks of a job with these GPUs export.

    `opens_others` says that tasks can open other GPUs too, which Slurm does not count: then its
    numbers may mean those.
    `slurms_gpus` are those that Slurm's numbers mean: other ones, where canhazgpu picked the job's,
    and None where that is not known. Slurm may then call its own by their UUIDs
    (``Flags=env_uuid`` in gres.conf, 26.05).
    """
    style = "uuid" if opens_others else _style(slurm.export, gpus, constrained=constrained)
    if slurms_gpus is None:
        return export_words(style, slurm.export_also, None)
    chosen = {gpu.position: gpu.uuid for gpu in gpus}
    slurms = tuple((gpu.position, gpu.uuid) for gpu in slurms_gpus)
    others = any(chosen.get(position) != uuid for position, uuid in slurms)
    return export_words(style, slurm.export_also, slurms if others else ())


def _style(configured: str, gpus: Sequence[AssignedGpu], *, constrained: bool) -> str:
    """Return the style of the record; no number means a MIG instance."""
    if any(gpu.uuid.startswith("MIG-") for gpu in gpus):
        return "uuid"
    return "uuid" if configured == "auto" and not constrained else configured
