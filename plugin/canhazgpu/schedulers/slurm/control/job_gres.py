"""A job's generic resources on a node, from the output of ``scontrol show job -d``; pure.

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
_INDICES = re.compile(r"\d{1,4}(?:-\d{1,4})?(?:,\d{1,4}(?:-\d{1,4})?)*")
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


def positions_in_gres(gres: str) -> tuple[int, ...]:
    """Return Slurm's own numbers of the job's GPUs in such a text, in order; empty for none.

    They are ``gpu:2(IDX:0-1)``, or for a share of GPUs ``shard:3(3/4,0/4)``: how much of each GPU.
    Raises `SchedulerError` where the text does not tell them.
    """
    found: set[int] = set()
    for part in map(_PART.fullmatch, _split(gres)):
        if part is None or part[1].lower() not in ("gpu", *SHARED_KINDS):
            continue
        of_gpus = _PART_OF_GPU.findall(part[3] or "")
        if of_gpus:
            found.update(place for place, (amount, _) in enumerate(of_gpus) if int(amount))
        else:
            found.update(_indices(part[3] or "", gres))
    return tuple(sorted(found))


def _indices(text: str, gres: str) -> list[int]:
    listed = text.removeprefix("IDX:")
    names = expand_hostlist(f"[{listed}]") if _INDICES.fullmatch(listed) else ()
    if text == listed or not names:
        raise SchedulerError(
            f"GRES={gres[:80]} does not tell which GPUs of the node the job has",
            next_step="report it",
        )
    return [int(name) for name in names]


def _split(gres: str) -> list[str]:
    """Split at the commas outside of parentheses."""
    return re.findall(r"(?:[^,(]|\([^)]*\))+", gres)
