"""Whether jobs of a site can have several nodes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from canhazgpu.errors import InputError
from canhazgpu.schedulers.slurm.conf.conf_files import ConfFiles
from canhazgpu.schedulers.slurm.conf.hostlist import expand_hostlist
from canhazgpu.schedulers.slurm.conf.parser import ConfLine

DEFAULT_ENTITY = "DEFAULT"


def allows_multi_node_jobs(conf: Path) -> bool:
    """Tell whether ``slurm.conf`` has several nodes, and a partition whose jobs may have them.

    Raises `ConfigError` for a file that cannot be read.
    """
    lines = tuple(ConfFiles(conf.parent).lines(conf))
    return _has_several_nodes(lines) and _has_partition_for_them(lines)


def _has_several_nodes(lines: Iterable[ConfLine]) -> bool:
    found: set[str] = set()
    for line in lines:
        if line.leading_key == "nodename" and line.pairs["nodename"].upper() != DEFAULT_ENTITY:
            try:
                found.update(expand_hostlist(line.pairs["nodename"]))
            except InputError:
                return True  # more than a list may name
    return len(found) > 1


def _has_partition_for_them(lines: Iterable[ConfLine]) -> bool:
    default = ""
    for line in lines:
        if line.leading_key != "partitionname":
            continue
        most = line.pairs.get("maxnodes", default)
        if line.pairs["partitionname"].upper() == DEFAULT_ENTITY:
            default = most
        elif most != "1":
            return True
    return False
