"""Where each file of a private cluster lies under its one directory."""

from __future__ import annotations

import shutil
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from demo_cluster.errors import DemoClusterError

LONGEST_SOCKET_PATH = 100
"""Bytes; the kernel takes 107, and munged puts a lock file beside its socket."""


def new_directory(parent: Path = Path("/tmp")) -> Path:
    """Make a directory that every user may enter (pytest's `tmp_path` is closed to other users)."""
    directory = Path(tempfile.mkdtemp(prefix="slurm-", dir=parent))
    directory.chmod(0o755)
    return directory


def agent_name(node: str) -> str:
    """Return the name of a node's agent among the daemons, and of its log."""
    return f"agent-{node}"


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths only; `create` makes the directories."""

    root: Path

    @property
    def etc(self) -> Path:
        return self.root / "etc"

    @property
    def logs(self) -> Path:
        return self.root / "log"

    @property
    def run(self) -> Path:
        return self.root / "run"

    @property
    def state(self) -> Path:
        return self.root / "state"

    @property
    def cgroup_mount(self) -> Path:
        return self.root / "cgroup"

    @property
    def slurm_conf(self) -> Path:
        return self.etc / "slurm.conf"

    @property
    def munge_key(self) -> Path:
        return self.etc / "munge.key"

    @property
    def munge_socket(self) -> Path:
        return self.run / "munge.socket"

    @property
    def controller_state(self) -> Path:
        return self.state / "slurmctld"

    def log(self, daemon: str) -> Path:
        return self.logs / f"{daemon}.log"

    def console(self, daemon: str) -> Path:
        """What a daemon printed by itself, mostly before its log was open."""
        return self.logs / f"{daemon}.console"

    def pid_file(self, daemon: str) -> Path:
        return self.run / f"{daemon}.pid"

    def spool(self, node: str) -> Path:
        return self.state / node

    @property
    def driver_proc(self) -> Path:
        """What daemons with a `/proc/driver` of their own see there."""
        return self.root / "driver-proc"

    def devices(self, node: str) -> Path:
        return self.root / "dev" / node

    def node_names(self) -> list[str]:
        """Return the nodes whose devices have been made."""
        devices = self.root / "dev"
        return sorted(path.name for path in devices.iterdir()) if devices.is_dir() else []

    def device(self, node: str, minor: int) -> Path:
        return self.devices(node) / f"nvidia{minor}"

    def home(self, user: str) -> Path:
        return self.root / "home" / user

    def create(self) -> None:
        """Make the directories; the state of an earlier start is thrown away."""
        check_usable(self)
        shutil.rmtree(self.state, ignore_errors=True)
        top = (self.etc, self.logs, self.run, self.state, self.root / "dev", self.root / "home")
        for directory in (self.root, *top, self.driver_proc, self.controller_state):
            directory.mkdir(mode=0o755, parents=True, exist_ok=True)
            directory.chmod(0o755)

    def delete(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)


def check_usable(layout: Layout) -> None:
    """Refuse a place that ordinary users cannot reach or whose socket path is too long."""
    if not layout.root.is_absolute():
        raise DemoClusterError(f"{layout.root} is not an absolute path")
    if len(str(layout.munge_socket)) > LONGEST_SOCKET_PATH:
        raise DemoClusterError(f"{layout.munge_socket} is too long for a socket")
    for parent in layout.root.parents:
        if parent.exists() and not parent.stat().st_mode & stat.S_IXOTH:
            raise DemoClusterError(
                f"ordinary users cannot enter {parent}; choose another place, "
                "for instance with demo_cluster.new_directory()"
            )
