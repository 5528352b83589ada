"""What jobs can share of a node's GPUs, and how much of it a GPU has; pure."""

from __future__ import annotations

from collections.abc import Iterable

from canhazgpu.schedulers.slurm.conf.declared_gpus import names_node, parse_count
from canhazgpu.schedulers.slurm.conf.hostlist import expand_hostlist
from canhazgpu.schedulers.slurm.conf.parser import ConfLine

SHARED_KINDS = ("shard", "mps")


def parse_shared_gres(gres: str | None, gres_types: str) -> dict[str, int | None]:
    """Return the kinds in ``Gres=`` of a node, each with its units on the whole node.

    The units are None where ``Gres=`` does not count them. For a node that ``slurm.conf`` does not
    name, `gres` is None: each kind in ``GresTypes`` may be there.
    """
    if gres is None:
        listed = {name.strip().lower() for name in gres_types.split(",")}
        return {kind: None for kind in SHARED_KINDS if kind in listed}
    units: dict[str, int | None] = {}
    for item in gres.split(","):
        kind, *words = item.partition("(")[0].strip().lower().split(":")
        if kind in SHARED_KINDS:
            count = parse_count(words[-1]) if words else None
            before = units.get(kind, 0)
            units[kind] = None if before is None or count is None else before + count
    return units


def units_of_one_gpu(
    kind: str, on_node: int | None, lines: Iterable[ConfLine], node: str, gpus: int | None
) -> int:
    """Return the units of each GPU, 0 where the files do not tell or GPUs differ.

    Slurm divides what a line of ``gres.conf`` counts equally among its files, and what a line
    without files counts among all GPUs of the node. `on_node` is the count in ``slurm.conf``, and
    `gpus` the number of the node's GPUs. Raises `InputError` for a line that cannot be read.
    """
    found = set()
    for line in lines:
        pairs = line.pairs
        of_node = "nodename" not in pairs or names_node(line, pairs["nodename"], node)
        if of_node and pairs.get("name", "").lower() == kind:
            units = parse_count(pairs["count"]) if "count" in pairs else on_node
            found.add(
                _divided(units, len(expand_hostlist(pairs["file"])) if "file" in pairs else gpus)
            )
    found = found or {_divided(on_node, gpus)}
    return found.pop() if len(found) == 1 else 0


def _divided(units: int | None, among: int | None) -> int:
    return units // among if units and among and units % among == 0 else 0
