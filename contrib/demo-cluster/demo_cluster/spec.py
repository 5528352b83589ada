"""What a private Slurm cluster looks like: a plain value, decided before anything starts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

DEFAULT_FIRST_MINOR = 100
"""Minor numbers start here, so that no device of a real GPU (0, 1, 2, …) is named."""

GPU_MAJOR = 195
"""The character-device major that NVIDIA's driver uses."""

CAPABILITY_MAJOR = 236
"""Stands for that of the driver's capabilities, which the kernel chooses when the driver loads."""


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """One node: its name and the device minors of its GPUs, in the order Slurm counts them."""

    name: str
    minors: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ClusterSpec:
    """A cluster of slurmd daemons that all run on this host.

    `minors` gives the device numbers of each node; by default every node has a range of its own.
    SLURM_JOB_GPUS counts a node's devices in this order from 0, whatever their numbers are.
    `gpu_types` gives the type of each GPU of a node; slurm.conf then declares the types in the
    reverse of the order in which they first appear, and Slurm counts type by type as declared.
    A hook (`prolog`, …) is the absolute path of a script, or a glob where Slurm allows one.
    `gpu_files` gives the device files of each GPU of a node, below the node's directory, where
    these are not just the `minors`: several files, or `nvidia-caps/nvidia-cap12`. With
    `shows_driver_proc` slurmd and its hooks see a directory of the cluster as `/proc/driver`.
    With `shows_devices` slurmd, its hooks and its jobs see the node's device files in `/dev`, and
    with `autodetect` other than ``off`` Slurm finds the GPUs there itself: gres.conf does not name
    them. `slurmd_library_path` is where slurmd's plugins find the driver's library.
    `shared_gres` names what several jobs share of the GPUs, ``shard`` or ``mps``, and how many each
    node has of it in all; Slurm divides them equally among the node's GPUs.
    `slurm_conf_extra`, `gres_conf_extra` and `cgroup_conf_extra` are appended as they are.
    `node_agent` is the command of a program that each node has, with its SLURMD_NODENAME: it runs
    from before slurmd, which waits for its READY=1 (sd_notify(3)), until after slurmd has ended.
    `node_mounts` are pairs: a path, and the file or directory that slurmd, its hooks, its jobs and
    the agent of a node see there instead of the host's own; ``%n`` in it is the node's name.
    With `host_cgroups` Slurm's control groups lie where they do on a host with one Slurm; the names
    of the nodes must then be used by no other cluster on the host.
    With `accounting` there is a slurmdbd, with a MariaDB that is the cluster's own.
    """

    nodes: int = 2
    gpus_per_node: int = 4
    minors: tuple[tuple[int, ...], ...] | None = None
    gpu_types: tuple[str, ...] = ()
    gpu_files: tuple[tuple[str, ...], ...] = ()
    shows_driver_proc: bool = False
    shows_devices: bool = False
    autodetect: str = "off"
    slurmd_library_path: Path | None = None
    shared_gres: tuple[tuple[str, int], ...] = ()
    cpus_per_node: int = 8
    memory_mb_per_node: int = 8000
    constrain_devices: bool = False
    prolog: Path | str | None = None
    epilog: Path | str | None = None
    task_prolog: Path | str | None = None
    task_epilog: Path | str | None = None
    health_check_program: Path | str | None = None
    health_check_interval_s: int = 0
    prolog_epilog_timeout_s: int | None = None
    prolog_flags: tuple[str, ...] = ("Alloc",)
    nohold_on_prolog_fail: bool = True
    kill_wait_s: int = 2
    cluster_name: str = "demo"
    node_prefix: str = "n"
    slurm_conf_extra: str = ""
    gres_conf_extra: str = ""
    cgroup_conf_extra: str = ""
    node_agent: tuple[str, ...] = ()
    node_mounts: tuple[tuple[str, str], ...] = ()
    host_cgroups: bool = False
    accounting: bool = False

    def __post_init__(self) -> None:
        if self.nodes < 1:
            raise ValueError(f"a cluster needs at least one node, not {self.nodes}")
        if self.minors is not None and len(self.minors) != self.nodes:
            raise ValueError(f"minors are given for {len(self.minors)} nodes of {self.nodes}")

    def node_specs(self) -> tuple[NodeSpec, ...]:
        return tuple(
            NodeSpec(f"{self.node_prefix}{number}", self._minors_of(number - 1))
            for number in range(1, self.nodes + 1)
        )

    def gpu_files_of(self, node: NodeSpec) -> tuple[tuple[str, ...], ...]:
        return self.gpu_files or tuple((f"nvidia{minor}",) for minor in node.minors)

    def node_names(self) -> tuple[str, ...]:
        return tuple(node.name for node in self.node_specs())

    def _minors_of(self, position: int) -> tuple[int, ...]:
        if self.minors is not None:
            return self.minors[position]
        first = DEFAULT_FIRST_MINOR + position * self.gpus_per_node
        return tuple(range(first, first + self.gpus_per_node))
