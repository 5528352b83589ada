"""The node's name, its boot and pid namespace, and the directory of its own records."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from canhazgpu.config.schema import NodeConfig

BOOT_ID_FILE = Path("/proc/sys/kernel/random/boot_id")
PID_NAMESPACE = Path("/proc/self/ns/pid")


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
