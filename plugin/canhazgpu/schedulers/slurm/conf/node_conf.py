r"""Read from Slurm's own files what its hooks are not told.

Slurm's files are lines of ``Key=Value`` pairs, keys in any case, ``#`` comments, ``\`` at the end
of a line continuing it, and ``Include FILE``. The first part of this module is pure.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from canhazgpu.errors import ConfigError, InputError
from canhazgpu.schedulers.slurm import environment as names
from canhazgpu.schedulers.slurm.conf.hostlist import expand_hostlist
from canhazgpu.schedulers.slurm.conf.settings import Settings, collect_settings
from canhazgpu.schedulers.slurm.hook.job_environment import owner_cluster_name

MAX_INCLUDES = 5
DEFAULT_SPOOL_DIR = "/var/spool/slurmd"
BOOLEAN_YES = ("yes", "up", "true", "1")
"""What Slurm reads as a boolean's yes, in any case (s_p_handle_boolean of its parse_value.c)."""

ConfPairs = dict[str, str]
_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
"""Slurm lowers the letters of ASCII alone."""
_PAIR = re.compile(r"""([A-Za-z0-9_]+)\s*=\s*("[^"]*"|\S+)""")


# gpu, gpu:4, gpu:a100:4, with (S:0-1) or (IDX…) behind it
_GRES = re.compile(r"gpu(?::([A-Za-z][^:,()]*))?(?::(\d{1,4}))?(?:\(.*)?")


@dataclass(frozen=True, slots=True)
class DeclaredGpus:
    """GPUs of one type that a node has; the type is empty where none is named."""

    kind: str
    count: int


@dataclass(frozen=True, slots=True)
class SlurmNodeConf:
    """What this node's Slurm says: who may open devices, in which files its GPUs are, its log.

    `spool_dir` is where slurmd keeps its jobs; `cluster` is "" where the files do not name it.
    """

    node: str
    constrains_devices: bool
    gres: tuple[ConfPairs, ...]
    nodes: tuple[ConfPairs, ...]
    log_file: Path | None
    spool_dir: Path | None = None
    cluster: str = ""

    @property
    def gpu_files(self) -> tuple[str, ...] | None:
        """The node's GPU device files, see `order_gpu_files`; raises `InputError` for a malformed list.

        Not read before it is asked for: a list that only Slurm understands is no reason to fail
        where nobody needs it.
        """
        return order_gpu_files(self.gres, self.node, self._declared)

    @property
    def gpu_count(self) -> int | None:
        """How many GPUs ``slurm.conf`` gives the node, None where it does not say."""
        return sum(one.count for one in self._declared) or None

    @property
    def _declared(self) -> tuple[DeclaredGpus, ...]:
        return parse_declared_gpus(self.nodes, self.node)


def default_conf_path() -> str:
    """Return where this node has ``slurm.conf``: slurmd tells its health check nothing of it."""
    places = (names.DEFAULT_CONF, names.CONFIGLESS_CONF)
    return next((place for place in places if Path(place).exists()), names.DEFAULT_CONF)


def read_node_conf(conf: Path, node: str, host: str) -> SlurmNodeConf:
    """Read ``slurm.conf`` and, beside it, ``cgroup.conf`` and ``gres.conf``.

    An absent file counts as an empty one, as it does for Slurm; one that is there but cannot be
    read raises `ConfigError`, since guessing would name the wrong GPU.
    """
    lines = tuple(read_conf_lines(conf))
    general = _merged_values(lines)
    cgroup = _merged_values(read_conf_lines(conf.with_name("cgroup.conf")))

    def path_of(text: str) -> Path | None:
        path = text.replace("%n", node).replace("%h", host)
        return Path(path) if path.startswith("/") else None

    return SlurmNodeConf(
        node=node,
        constrains_devices=cgroup.get("constraindevices", "no").lower() in BOOLEAN_YES
        and "task/cgroup" in general.get("taskplugin", "").lower(),
        gres=tuple(read_conf_lines(conf.with_name("gres.conf"))),
        nodes=tuple(line for line in lines if "nodename" in line),
        log_file=path_of(general.get("slurmdlogfile", "")),
        # Slurm's own spelling of it, whatever the file's.
        cluster=owner_cluster_name(general.get("clustername", "").translate(_LOWER)),
        spool_dir=path_of(general.get("slurmdspooldir", DEFAULT_SPOOL_DIR)),
    )


def read_settings(conf: Path) -> Settings:
    """Read the general settings of ``slurm.conf``; an absent file has none."""
    return collect_settings(read_conf_lines(conf))


def parse_declared_gpus(nodes: Iterable[ConfPairs], node: str) -> tuple[DeclaredGpus, ...]:
    """Return what ``Gres=`` of the node's line in ``slurm.conf`` says of GPUs, in its order."""
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
    """Return the node's GPU device files as Slurm counts them, None where none is named.

    Slurm's number of a GPU is its place in this list, from 0 (measured on 22.05): the order of
    ``gres.conf`` where GPUs have no type, else type by type in the order of ``Gres=`` in
    ``slurm.conf``. Raises `InputError` where the two files do not fit each other.
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


def _merged_values(lines: Iterable[ConfPairs]) -> ConfPairs:
    merged: ConfPairs = {}
    for line in lines:
        merged |= line
    return merged


def parse_line(text: str) -> ConfPairs:
    """Return the pairs of one line, keys in lower case."""
    return {key.lower(): value.strip('"') for key, value in _PAIR.findall(_uncommented(text))}


def _uncommented(text: str) -> str:
    return re.sub(r"(?<!\\)#.*", "", text)


def read_conf_lines(path: Path, depth: int = 0) -> Iterator[ConfPairs]:
    """Read a file of Slurm's and what it includes; see `read_node_conf` for what it raises."""
    try:
        text = path.read_text("utf-8", "replace")
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as exc:
        raise ConfigError(f"cannot read {path}: {exc.strerror}") from exc
    for line in text.replace("\\\n", "").splitlines():
        include = re.fullmatch(r"\s*include\s+(\S+)\s*", _uncommented(line), re.IGNORECASE)
        if include and depth < MAX_INCLUDES:
            yield from read_conf_lines(path.parent / include[1], depth + 1)
        elif pairs := parse_line(line):
            yield pairs
