"""One GPU as Slurm counts it; pure."""

from __future__ import annotations

from canhazgpu.frozen_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class GpuDevice:
    """One GPU of a node, a whole one or a MIG instance: what one count of ``Gres=`` stands for.

    `kind` is its ``Type=``, empty for none. `files` are the device files that a job opens for it:
    one for ``File=``, several for ``MultipleFiles=``.
    """

    kind: str
    files: tuple[str, ...]
