r"""Read from Slurm's own files what its hooks are not told.

Slurm's files are lines of ``Key=Value`` pairs, keys in any case, ``#`` comments, ``\`` at the end
of a line continuing it, and ``Include FILE``. The first part of this module is pure.
"""

from __future__ import annotations

import string
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from canhazgpu.schedulers.slurm import environment as names
from canhazgpu.schedulers.slurm.conf.cluster_name import owner_cluster_name
from canhazgpu.schedulers.slurm.conf.gres import DeclaredGpus, order_gpu_files, parse_declared_gpus
from canhazgpu.schedulers.slurm.conf.parser import ConfPairs, read_conf_lines
from canhazgpu.schedulers.slurm.conf.settings import Settings, collect_settings

DEFAULT_SPOOL_DIR = "/var/spool/slurmd"
BOOLEAN_YES = ("yes", "up", "true", "1")
"""What Slurm reads as a boolean's yes, in any case (s_p_handle_boolean of its parse_value.c)."""

_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
"""Slurm lowers the letters of ASCII alone."""


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
    paths = (names.DEFAULT_CONF, names.CONFIGLESS_CONF)
    return next((path for path in paths if Path(path).exists()), names.DEFAULT_CONF)


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


def _merged_values(lines: Iterable[ConfPairs]) -> ConfPairs:
    merged: ConfPairs = {}
    for line in lines:
        merged |= line
    return merged
