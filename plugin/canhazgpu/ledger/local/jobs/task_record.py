"""The record that the task prolog reads, ``<state_dir>/jobs/<id>.env``, as text; pure.

The task prolog may be another release's (decision 18). A line that it does not know would leave
the job's tasks without GPUs. Of several lines ``export WORD`` the release before this one takes the
last alone, so the last is one that it knows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from canhazgpu.gpu.assigned import AssignedGpu

ENV_FORMAT = "canhazgpu 1"
UNKNOWN_INDEX = "-"
"""Where CUDA's index is to be exported and is not certain: no release exports one then."""


def export_words(
    style: str, also: Iterable[str] = (), scheduler_uuids: Iterable[tuple[int, str]] | None = ()
) -> list[str]:
    """Return the words for what the task prolog exports beside ``CANHAZGPU_GPUS``.

    `style` is what ``CUDA_VISIBLE_DEVICES`` holds: ``uuid``, ``index``, or ``auto`` for the
    scheduler's own value where that is right. `also` are variables that get the UUIDs too.
    `scheduler_uuids` are the UUIDs by which the scheduler may call its own GPUs, with their
    positions, where the job has others in their place; None where those are not known.
    """
    words = [f"also={name}" for name in also]
    if scheduler_uuids is None:
        words.append("slurm=unknown")
    else:
        words += [f"slurm={position}={uuid}" for position, uuid in scheduler_uuids]
    return [*words, "auto", "uuid"] if style == "auto" else [*words, style]


def task_record_text(
    gpus: Sequence[AssignedGpu], export: Sequence[str], *, constrained: bool, cluster: str = ""
) -> str:
    """Return the record of a job with these GPUs; `export` are `export_words`.

    `cluster` is the job's: its task may be another cluster's job of the same number.
    """
    words = [f"cluster={cluster}", *export] if cluster else export
    lines = [ENV_FORMAT, f"constrained {int(constrained)}", *(f"export {word}" for word in words)]
    lines += [
        f"gpu {gpu.position} {gpu.uuid} {_index(gpu, export)} {gpu.device_file or '-'}"
        for gpu in sorted(gpus, key=lambda gpu: gpu.position)
    ]
    return "\n".join(lines) + "\n"


def _index(gpu: AssignedGpu, export: Sequence[str]) -> str:
    """Return CUDA's index; where it is not certain, NVML's, which is for comparison alone."""
    if gpu.cuda_index is None:
        return UNKNOWN_INDEX if "index" in export else str(gpu.index)
    return str(gpu.cuda_index)
