"""Pure: the GPUs of a node in ``gres.conf`` and in ``Gres=`` of ``slurm.conf``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from canhazgpu.errors import InputError
from canhazgpu.schedulers.slurm.conf.hostlist import expand_hostlist
from canhazgpu.schedulers.slurm.conf.parser import ConfPairs

# gpu, gpu:4, gpu:a100:4, each possibly followed by (S:0-1) or (IDX…)
_GRES = re.compile(r"gpu(?::([A-Za-z][^:,()]*))?(?::(\d{1,4}))?(?:\(.*)?")


@dataclass(frozen=True, slots=True)
class DeclaredGpus:
    """The number of a node's GPUs of one type; the type is empty if ``Gres=`` names none."""

    kind: str
    count: int


def parse_declared_gpus(nodes: Iterable[ConfPairs], node: str) -> tuple[DeclaredGpus, ...]:
    """Return the GPUs in ``Gres=`` of the node's line in ``slurm.conf``, in that order."""
    gres = ""
    default = ""
    for line in nodes:
        if line["nodename"].upper() == "DEFAULT":
            default = line.get("gres", default)
        elif node in expand_hostlist(line["nodename"]):
            gres = line.get("gres", default)
    found = (_GRES.fullmatch(part) for part in gres.split(","))
    return tuple(DeclaredGpus(one[1] or "", int(one[2] or 1)) for one in found if one)


def order_gpu_files(
    lines: Iterable[ConfPairs], node: str, declared: Sequence[DeclaredGpus] = ()
) -> tuple[str, ...] | None:
    """Return the node's GPU device files in Slurm's order, None if ``gres.conf`` names none.

    Slurm's number of a GPU is its index in this list (measured on 22.05). GPUs without a type are
    in the order of ``gres.conf``; typed GPUs are grouped by type, in the order of ``Gres=`` in
    ``slurm.conf``. Raises `InputError` if the two files disagree.
    """
    by_type = _files_by_type(lines, node)
    files = [file for _, file in by_type]
    if len({kind for kind, _ in by_type}) > 1:
        files = [
            file
            for one in declared
            for file in [file for kind, file in by_type if kind == one.kind][: one.count]
        ]
    count = sum(one.count for one in declared)
    if by_type and declared and not len(files) == len(by_type) == count:
        raise InputError(
            f"gres.conf names {len(by_type)} GPU files for {node}, and Gres= in slurm.conf"
            f" {count} GPUs: make the files and the types agree"
        )
    return tuple(files) or None


def _files_by_type(lines: Iterable[ConfPairs], node: str) -> list[tuple[str, str]]:
    files: list[tuple[str, str]] = []
    for line in lines:
        if line.get("name", "").lower() != "gpu" or "file" not in line:
            continue
        if "nodename" in line and node not in expand_hostlist(line["nodename"]):
            continue
        files.extend((line.get("type", ""), file) for file in expand_hostlist(line["file"]))
    return files
