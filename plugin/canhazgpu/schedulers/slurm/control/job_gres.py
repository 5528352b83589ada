"""Pure: a job's generic resources on a node, from the output of ``scontrol show job -d``.

Other lines of that output hold texts of the job's user, such as its name, which may look like the
line that is sought. So a second such line makes the answer invalid: it harms only that user's job.
"""

from __future__ import annotations

import re

from canhazgpu.errors import SchedulerError
from canhazgpu.ledger.values import Share
from canhazgpu.schedulers.slurm.conf.hostlist import expand_hostlist
from canhazgpu.schedulers.slurm.conf.shared_gres import SHARED_KINDS

# Nodes=n[1-2] CPU_IDs=0-3 Mem=0 GRES=shard:2(1/4,1/4)
_NODE_LINE = re.compile(r"\s*Nodes=(\S+) CPU_IDs=\S* Mem=\S* GRES=(\S*)\s*")
_PART = re.compile(r"([a-z]+)(?::[^:,()]+)?:(\d{1,9})(?:\(([^()]*)\))?", re.I)
_PART_OF_GPU = re.compile(r"(\d{1,9})/(\d{1,9})")


def describes_several(text: str) -> bool:
    """Tell whether the output describes several jobs, or looks like it by a user's text."""
    return sum(line.startswith("JobId=") for line in text.splitlines()) > 1


def gres_on_node(text: str, node: str) -> str:
    """Return the job's ``GRES=`` of the node; raises `SchedulerError` without exactly one."""
    lines = filter(None, map(_NODE_LINE.fullmatch, text.splitlines()))
    found = [line[2] for line in lines if node in expand_hostlist(line[1])]
    if len(found) != 1:
        raise SchedulerError(
            f"'scontrol show job -d' names the job's GRES on {node} {len(found)} times instead of"
            " once, so it cannot be told whether the job shares its GPU",
            next_step="report it with the output of that command",
        )
    return found[0]


def share_in_gres(gres: str) -> Share | None:
    """Return the share in a text such as ``shard:1(IDX:0)``, None for whole GPUs.

    From 24.11 on, the text tells the units of each GPU, ``shard:3(3/4,0/4)``; before, the total is
    not known. Raises `SchedulerError` where the text is not understood.
    """
    parts = [found for part in _split(gres) if (found := _PART.fullmatch(part))]
    if len(parts) != len(_split(gres)):
        raise SchedulerError(
            f"GRES={gres[:80]} of the job is not understood", next_step="report it"
        )
    shares = [one for one in parts if one[1].lower() in SHARED_KINDS]
    if not shares:
        return None
    kinds = {one[1].lower() for one in parts if one[1].lower() in ("gpu", *SHARED_KINDS)}
    if len(kinds) > 1:
        raise SchedulerError(
            f"the job has {' and '.join(sorted(kinds))} on one node, so it cannot be told which of"
            " its GPUs it shares: ask for them in jobs of their own",
            next_step="",
        )
    (kind,) = kinds
    of_gpus = [found for one in shares for found in _PART_OF_GPU.findall(one[3] or "")]
    total = sum(int(total) for amount, total in of_gpus if int(amount))
    return Share(kind, sum(int(one[2]) for one in shares), total)


def _split(gres: str) -> list[str]:
    """Split at the commas outside of parentheses."""
    return re.findall(r"(?:[^,(]|\([^)]*\))+", gres)
