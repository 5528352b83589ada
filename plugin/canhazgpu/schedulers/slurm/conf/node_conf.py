"""Read from Slurm's configuration files what the environment of its hooks does not contain."""

from __future__ import annotations

import string
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from canhazgpu.schedulers.slurm import environment as names
from canhazgpu.schedulers.slurm.conf.cluster_name import owner_cluster_name
from canhazgpu.schedulers.slurm.conf.gpu_device import GpuDevice
from canhazgpu.schedulers.slurm.conf.gres import (
    DeclaredGpus,
    order_gpu_devices,
    parse_declared_gpus,
)
from canhazgpu.schedulers.slurm.conf.parser import ConfPairs, read_conf_lines
from canhazgpu.schedulers.slurm.conf.settings import Settings, collect_settings

DEFAULT_SPOOL_DIR = "/var/spool/slurmd"
BOOLEAN_YES = ("yes", "up", "true", "1")
"""What Slurm reads as true, in any case (s_p_handle_boolean in parse_value.c)."""

_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
"""Slurm lowers ASCII letters only."""


@dataclass(frozen=True, slots=True)
class SlurmNodeConf:
    """What Slurm's files say about this node: device constraints, GPUs, slurmd's log.

    `spool_dir` is SlurmdSpoolDir. `cluster` is "" if the files do not name it.
    """

    node: str
    constrains_devices: bool
    gres: tuple[ConfPairs, ...]
    nodes: tuple[ConfPairs, ...]
    log_file: Path | None
    spool_dir: Path | None = None
    cluster: str = ""

    @property
    def gpu_devices(self) -> tuple[GpuDevice, ...] | None:
        """The node's GPUs in Slurm's order, see `order_gpu_devices`; raises `InputError`.

        Parsed on access, since a job without GPUs must not fail for a list it does not use.
        """
        return order_gpu_devices(self.gres, self.node, self._declared)

    @property
    def gpu_count(self) -> int | None:
        """How many GPUs ``slurm.conf`` gives the node, None if it does not say."""
        return sum(one.count for one in self._declared) or None

    @property
    def has_several_gpu_types(self) -> bool:
        """Whether ``Gres=`` names several types of GPUs for the node; raises `InputError`."""
        return len({one.kind for one in self._declared}) > 1

    @property
    def job_owner_prefix(self) -> str:
        """The beginning of the owner token of each job of this cluster."""
        return f"job:{self.cluster}:" if self.cluster else "job:"

    @property
    def _declared(self) -> tuple[DeclaredGpus, ...]:
        return parse_declared_gpus(self.nodes, self.node)


def default_conf_path() -> str:
    """Return the path of ``slurm.conf`` where SLURM_CONF is not set, as in a health check."""
    paths = (names.DEFAULT_CONF, names.CONFIGLESS_CONF)
    return next((path for path in paths if Path(path).exists()), names.DEFAULT_CONF)


def conf_path(environ: Mapping[str, str]) -> Path:
    """Return the path of ``slurm.conf``."""
    return Path(environ.get(names.SLURM_CONF) or default_conf_path())


def read_node_conf(conf: Path, node: str, host: str) -> SlurmNodeConf:
    """Read ``slurm.conf`` and, beside it, ``cgroup.conf`` and ``gres.conf``.

    An absent file counts as empty, as it does for Slurm. A file that exists but cannot be read
    raises `ConfigError`: a guess could give a job the wrong GPU.
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
        # Slurm itself lowers the name.
        cluster=owner_cluster_name(general.get("clustername", "").translate(_LOWER)),
        spool_dir=path_of(general.get("slurmdspooldir", DEFAULT_SPOOL_DIR)),
    )


def read_settings(conf: Path) -> Settings:
    """Read the general settings of ``slurm.conf``; an absent file has no settings."""
    return collect_settings(read_conf_lines(conf))


def _merged_values(lines: Iterable[ConfPairs]) -> ConfPairs:
    merged: ConfPairs = {}
    for line in lines:
        merged |= line
    return merged
