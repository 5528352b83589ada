"""The checks of GPUs that jobs share, by ``shard`` or ``mps``; pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from canhazgpu.errors import InputError
from canhazgpu.schedulers.slurm.conf.shared_gres import units_of_one_gpu
from canhazgpu.schedulers.slurm.site.state import Problem, SiteState

EXACT_RELEASE = (24, 11)
"""The oldest release seen to count no whole GPU on a GPU that jobs share, and to tell a job's part
of each GPU. 22.05 does neither."""


def shared_gpus(site: SiteState) -> Iterator[Problem]:
    """Find what canhazgpu or this release of Slurm does not do for GPUs that jobs share."""
    conf = site.slurm.node_conf
    try:
        kinds = conf.shared_gres
        units = {
            kind: units_of_one_gpu(kind, count, conf.gres, conf.node, conf.gpu_count)
            for kind, count in kinds.items()
        }
    except InputError:
        return  # `gres-files` tells
    if not kinds:
        return
    names = " and ".join(kinds)
    if site.config.config.slurm.assignment != "slurm" and not conf.constrains_devices:
        yield Problem(
            "warning",
            f"{names} in Gres=, and canhazgpu picks the GPUs of jobs that share none: Slurm may"
            " count a share on a GPU that was picked for such a job, and that share is refused",
            "Slurm picks all GPUs",
            'assignment = "slurm" in [slurm] of canhazgpu\'s configuration',
        )
    if _is_before_exact_release(site.slurm.version):
        yield Problem(
            "warning",
            f"{names} in Gres=: this release of Slurm may also count a whole GPU on a GPU that jobs"
            " share (seen on 22.05); canhazgpu refuses it to the job",
            "Slurm 24.11 or newer",
            "separate partitions for jobs that share GPUs and for others",
        )
        if units.get("shard") == 0:
            yield Problem(
                "warning",
                "gres.conf does not tell how many units of shard each GPU has, and this release of"
                " Slurm does not either: a share counts as a whole GPU in 'canhazgpu report'",
                "the same Count= for each GPU",
                "Name=shard Count=… in gres.conf, a multiple of the node's GPUs",
            )


def _is_before_exact_release(version: str | None) -> bool:
    found = re.search(r"(\d+)\.(\d+)", version or "")
    return found is not None and (int(found[1]), int(found[2])) < EXACT_RELEASE
