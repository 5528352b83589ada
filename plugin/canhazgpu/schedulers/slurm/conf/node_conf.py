"""Read from Slurm's configuration files what the environment of its hooks does not contain."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field
from pathlib import Path

from canhazgpu.errors import ConfigError, InputError
from canhazgpu.frozen_dataclass import dataclass
from canhazgpu.path_presence import may_exist
from canhazgpu.schedulers.slurm import environment as names
from canhazgpu.schedulers.slurm.conf.cluster_name import owner_cluster_name
from canhazgpu.schedulers.slurm.conf.conf_files import ConfFiles, FileStamp, lower_as_slurm
from canhazgpu.schedulers.slurm.conf.declared_gpus import (
    DeclaredGpus,
    node_line,
    parse_declared_gpus,
)
from canhazgpu.schedulers.slurm.conf.gpu_device import GpuDevice
from canhazgpu.schedulers.slurm.conf.gres import GresConf, order_gpu_devices, parse_gres_conf
from canhazgpu.schedulers.slurm.conf.hostlist import expand_hostlist
from canhazgpu.schedulers.slurm.conf.parser import ConfLine, ConfPairs
from canhazgpu.schedulers.slurm.conf.partitions import ENTITIES, node_partitions
from canhazgpu.schedulers.slurm.conf.settings import (
    Settings,
    collect_settings,
    has_task_cgroup,
)
from canhazgpu.schedulers.slurm.conf.shared_gres import parse_shared_gres

DEFAULT_SPOOL_DIR = "/var/spool/slurmd"
BOOLEAN_YES = ("yes", "up", "true", "1")
"""What Slurm reads as true, in any case (s_p_handle_boolean in parse_value.c)."""


@dataclass(frozen=True, slots=True)
class SlurmNodeConf:
    """What Slurm's files say about this node: device constraints, GPUs, slurmd's log.

    `gres` and `nodes` are the lines of ``gres.conf`` and those about nodes in ``slurm.conf``;
    `entities` are the latter with those about partitions and sets of nodes.
    `spool_dir` is SlurmdSpoolDir. `cluster` is "" if the files do not name it. `stamps` has every
    file that was read or looked for. `gres_types` is GresTypes.
    """

    node: str
    constrains_devices: bool
    gres: tuple[ConfLine, ...]
    nodes: tuple[ConfLine, ...]
    log_file: Path | None
    spool_dir: Path | None = None
    cluster: str = ""
    stamps: Mapping[str, FileStamp] = field(default_factory=dict)
    gres_types: str = ""
    entities: tuple[ConfLine, ...] = ()
    _gres_conf: list[GresConf] = field(default_factory=list, compare=False, repr=False)
    """Filled on the first use."""

    @property
    def gpu_devices(self) -> tuple[GpuDevice, ...]:
        """The node's GPUs with device files, in the order of ``gres.conf`` and ``Gres=``.

        That is Slurm's order unless it detects GPUs (`GresConf.autodetect`). Raises `InputError`
        where the files leave the order open. Parsed on access, since a job without GPUs must not
        fail for a list it does not use.
        """
        records, declared = self.gres_conf.records, self.declared_gpus
        return order_gpu_devices(records, declared)

    @property
    def gres_conf(self) -> GresConf:
        """What ``gres.conf`` says of this node's GPUs; raises `InputError`."""
        if not self._gres_conf:
            self._gres_conf.append(parse_gres_conf(self.gres, self.node))
        return self._gres_conf[0]

    @property
    def declared_gpus(self) -> tuple[DeclaredGpus, ...] | None:
        """The node's GPUs in ``Gres=``, None for a node that ``slurm.conf`` does not name."""
        found = node_line(self.nodes, self.node)
        if found is None:
            return None
        try:
            return parse_declared_gpus(found[1])
        except InputError as exc:
            raise InputError(f"{found[0].origin}: {exc}") from exc

    @property
    def gpu_count(self) -> int | None:
        """How many GPUs ``slurm.conf`` gives the node, None if it does not say."""
        return sum(one.count for one in self.declared_gpus or ()) or None

    @property
    def has_several_gpu_types(self) -> bool:
        """Whether ``Gres=`` names several types of GPUs for the node; raises `InputError`."""
        return len({one.kind for one in self.declared_gpus or ()}) > 1

    @property
    def partitions(self) -> tuple[str, ...]:
        """The node's partitions, see `node_partitions`; raises `InputError`."""
        return node_partitions(self.entities, self.node)

    @property
    def shared_gres(self) -> dict[str, int | None]:
        """What jobs can share of the node's GPUs, see `parse_shared_gres`; raises `InputError`."""
        found = node_line(self.nodes, self.node)
        return parse_shared_gres(found[1] if found else None, self.gres_types)

    @property
    def job_owner_prefix(self) -> str:
        """The beginning of the owner token of each job of this cluster."""
        return f"job:{self.cluster}:" if self.cluster else "job:"


def default_conf_path() -> str:
    """Return the path of ``slurm.conf`` where SLURM_CONF is not set, as in a health check."""
    paths = (names.DEFAULT_CONF, names.CONFIGLESS_CONF)
    return next((path for path in paths if may_exist(Path(path))), names.DEFAULT_CONF)


def conf_path(environ: Mapping[str, str]) -> Path:
    """Return the path of ``slurm.conf``."""
    return Path(environ.get(names.SLURM_CONF) or default_conf_path())


def read_node_conf(conf: Path, node: str, host: str, root: Path = Path("/")) -> SlurmNodeConf:
    """Read ``slurm.conf`` and, beside it, ``cgroup.conf`` and ``gres.conf``.

    `root` is the host's root directory, for files in an image of it. An absent file counts as
    empty, as it does for Slurm. Raises `ConfigError` for a file that exists but cannot be read, and
    for an Include without its file: a guess could give a job the wrong GPU.
    """
    files = ConfFiles(conf.parent, root)
    lines = tuple(files.lines(conf))
    general = _merged_values(lines)
    cgroup = _merged_values(files.lines(conf.with_name("cgroup.conf")))

    def path_of(text: str) -> Path | None:
        path = text.replace("%n", node).replace("%h", host)
        return Path(path) if path.startswith("/") else None

    return SlurmNodeConf(
        node=node,
        constrains_devices=cgroup.get("constraindevices", "no").lower() in BOOLEAN_YES
        and has_task_cgroup(lines),
        gres=tuple(files.lines(conf.with_name("gres.conf"))),
        nodes=tuple(line for line in lines if line.leading_key == "nodename"),
        log_file=path_of(general.get("slurmdlogfile", "")),
        # Slurm itself lowers the name.
        cluster=owner_cluster_name(lower_as_slurm(general.get("clustername", ""))),
        spool_dir=path_of(general.get("slurmdspooldir", DEFAULT_SPOOL_DIR)),
        stamps=files.stamps,
        gres_types=general.get("grestypes", ""),
        entities=tuple(line for line in lines if line.leading_key in ENTITIES),
    )


def cluster_of_conf(conf: Path) -> str:
    """Return the cluster's name for an owner's token; "" where the file does not tell it."""
    try:
        return read_node_conf(conf, "", "").cluster
    except ConfigError:
        return ""


def has_mps(conf: Path, node: str) -> bool:
    """Tell whether ``slurm.conf`` gives the node ``mps``; False where it cannot be read."""
    try:
        return "mps" in read_node_conf(conf, node, node).shared_gres
    except (ConfigError, InputError):
        return False


def nodes_with_gpus(conf: Path) -> tuple[str, ...]:
    """Return the nodes to which ``slurm.conf`` gives GPUs.

    Raises `ConfigError` where it cannot be read, `InputError` for a malformed list of nodes.
    """
    default, found = "", list[str]()
    for line in ConfFiles(conf.parent).lines(conf):
        names = line.pairs.get("nodename", "") if line.leading_key == "nodename" else ""
        gres = line.pairs.get("gres", default)
        if names.upper() == "DEFAULT":
            default = gres
        elif names and parse_declared_gpus(gres):
            found += expand_hostlist(names)
    return tuple(dict.fromkeys(found))


def read_settings(conf: Path, root: Path = Path("/")) -> Settings:
    """Read the general settings of ``slurm.conf``, or of ``cgroup.conf``; see `read_node_conf`.

    An absent file has no settings.
    """
    return collect_settings(line.pairs for line in ConfFiles(conf.parent, root).lines(conf))


def _merged_values(lines: Iterable[ConfLine]) -> ConfPairs:
    merged: ConfPairs = {}
    for line in lines:
        merged |= line.pairs
    return merged
