r"""Read from Slurm's own files what its hooks are not told.

Slurm's files are lines of ``Key=Value`` pairs, keys in any case, ``#`` comments, ``\`` at the end
of a line continuing it, and ``Include FILE``. The first part of this module is pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from canhazgpu.schedulers.slurm.hostlist import expand

MAX_INCLUDES = 5
YES = ("yes", "up", "true", "1")
"""What Slurm reads as a boolean's yes, in any case (s_p_handle_boolean of its parse_value.c)."""

Line = dict[str, str]
_PAIR = re.compile(r"""([A-Za-z0-9_]+)\s*=\s*("[^"]*"|\S+)""")


@dataclass(frozen=True, slots=True)
class SlurmFacts:
    """What this node's Slurm says: who may open devices, in which files its GPUs are, its log."""

    node: str
    constrains_devices: bool
    gres: tuple[Line, ...]
    log_file: Path | None

    @property
    def gpu_files(self) -> tuple[str, ...] | None:
        """The node's GPU device files, see `gpu_files`; raises `InputError` for a malformed list.

        Not read before it is asked for: a list that only Slurm understands is no reason to fail
        where nobody needs it.
        """
        return gpu_files(self.gres, self.node)


def read_facts(conf: Path, node: str, host: str) -> SlurmFacts:
    """Read ``slurm.conf`` and, beside it, ``cgroup.conf`` and ``gres.conf``.

    An absent file counts as an empty one, as it does for Slurm.
    """
    general = _values(_lines(conf))
    cgroup = _values(_lines(conf.with_name("cgroup.conf")))
    log = general.get("slurmdlogfile", "").replace("%n", node).replace("%h", host)
    return SlurmFacts(
        node=node,
        constrains_devices=cgroup.get("constraindevices", "no").lower() in YES
        and "task/cgroup" in general.get("taskplugin", "").lower(),
        gres=tuple(_lines(conf.with_name("gres.conf"))),
        log_file=Path(log) if log.startswith("/") else None,
    )


def gpu_files(lines: Iterable[Line], node: str) -> tuple[str, ...] | None:
    """Return the node's GPU device files in the order of ``gres.conf``, None where none is named.

    Slurm's number of a GPU is its place in this list, from 0 (measured on 22.05).
    """
    files: list[str] = []
    for line in lines:
        if line.get("name", "").lower() != "gpu" or "file" not in line:
            continue
        if "nodename" in line and node not in expand(line["nodename"]):
            continue
        files.extend(expand(line["file"]))
    return tuple(files) or None


def _values(lines: Iterator[Line]) -> Line:
    merged: Line = {}
    for line in lines:
        merged |= line
    return merged


def parse_line(text: str) -> Line:
    """Return the pairs of one line, keys in lower case."""
    return {key.lower(): value.strip('"') for key, value in _PAIR.findall(_uncommented(text))}


def _uncommented(text: str) -> str:
    return re.sub(r"(?<!\\)#.*", "", text)


def _lines(path: Path, depth: int = 0) -> Iterator[Line]:
    try:
        text = path.read_text("utf-8", "replace")
    except OSError:
        return
    for line in text.replace("\\\n", "").splitlines():
        include = re.fullmatch(r"\s*include\s+(\S+)\s*", _uncommented(line), re.IGNORECASE)
        if include and depth < MAX_INCLUDES:
            yield from _lines(path.parent / include[1], depth + 1)
        elif pairs := parse_line(line):
            yield pairs
