"""The node's name, its boot and pid namespace, the directory of its own records, and its cluster.

The cluster and the machine tell a node from another cluster's node of the same name.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from canhazgpu.frozen_dataclass import dataclass

if TYPE_CHECKING:
    from canhazgpu.config.schema import NodeConfig

BOOT_ID_FILE = Path("/proc/sys/kernel/random/boot_id")
PID_NAMESPACE = Path("/proc/self/ns/pid")
MACHINE_ID_FILE = Path("/etc/machine-id")
"""Unique to a machine, the same after a reboot, for everybody to read: machine-id(5)."""


def node_name(node: NodeConfig, environ: Mapping[str, str]) -> str:
    """Return the node's name: the configured one, else Slurm's, else the short host name."""
    return node.name or environ.get("SLURMD_NODENAME") or socket.gethostname().split(".")[0]


def state_dir(node: NodeConfig, name: str) -> Path:
    """Return the directory of the node's own records; ``%n`` stands for the node's name."""
    return Path(node.state_dir.replace("%n", name))


def boot_id() -> str | None:
    """Return the kernel's id of this boot, None if it cannot be read."""
    try:
        return BOOT_ID_FILE.read_text("utf-8").strip()
    except OSError:
        return None


def pid_namespace() -> int | None:
    """Return the inode of this process's pid namespace, None if it cannot be read."""
    try:
        return PID_NAMESPACE.stat().st_ino
    except OSError:
        return None


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """A node by its name, its cluster, and the machine with the directory of its records.

    Two slurmds of two clusters that keep one directory of records are one node in two clusters.
    With `records`, the store takes the identity over with the next scan: only root's hooks may say
    whose a node is. Commands of users are only refused.
    """

    node: str
    cluster: str
    machine: str
    host: str
    records: bool = True

    def to_json(self) -> str:
        """Return what the store records; without the node's name, which the key has."""
        return json.dumps(
            {
                "cluster": self.cluster,
                "machine": self.machine,
                "host": self.host,
                "records": "yes" if self.records else "no",
            }
        )


def node_identity(
    node: str, cluster: str, state_dir: Path, boot_id: str | None
) -> NodeIdentity | None:
    """Return this machine's identity as a node of the cluster; None for no cluster."""
    if not cluster:
        return None
    from hashlib import sha256  # noqa: PLC0415 - where a store is asked

    try:
        machine_id = MACHINE_ID_FILE.read_text("utf-8").strip()
    except (OSError, ValueError):
        machine_id = ""
    # Hashed: the id itself is not for everybody on the network.
    text = f"canhazgpu {machine_id or boot_id} {state_dir}"
    machine = sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
    return NodeIdentity(node, cluster, machine, socket.gethostname())
