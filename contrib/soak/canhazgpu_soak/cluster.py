"""The world of a soak: a private Slurm of two nodes with agents, a store, Unix users."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import threading
import time
import uuid
from pathlib import Path

from canhazgpu_demo.users import create_user, delete_users
from canhazgpu_soak.clock import SteppedClock, build_library
from canhazgpu_soak.installation import GPUS_PER_NODE, SPEC, Installation
from canhazgpu_soak.node_processes import processes_on
from canhazgpu_soak.stores.embedded import EmbeddedStore
from canhazgpu_soak.stores.port import SoakStore
from canhazgpu_soak.stores.sentinel import SentinelStore
from canhazgpu_soak.stores.single import SingleStore
from demo_cluster import ClusterSpec, PrivateSlurm, new_directory
from fake_nvml import FakeState, install

USERS = 4
STATE_OPTIONS = "size=16m,nr_inodes=2000,mode=755"
"""Of the file system of a node's state directory: a full one is full soon."""
NODE_MARK = "SOAK_NODE"
"""Tells to which node the programs of people belong, which see the host's boot id."""
STORES: dict[str, type[SingleStore | SentinelStore | EmbeddedStore]] = {
    "single": SingleStore,
    "sentinel": SentinelStore,
    "embedded": EmbeddedStore,
}


def now() -> float:
    """The time of all records; see `records`."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _mount_memory(directory: Path, options: str) -> None:
    """Make the directory a file system in memory."""
    directory.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", options, "soak", str(directory)]
    subprocess.run(mount, check=True, timeout=60)


class SoakCluster:
    """Everything lies in one directory and is undone by `close`.

    The state directories are small file systems of their own. They are mounted, so the process has
    to have a mount namespace of its own, in which they end with it.
    """

    def __init__(
        self,
        venv: Path,
        store: str,
        weakness: str = "strong",
        *,
        has_hooks: bool = True,
        driver: Path | None = None,
    ) -> None:
        self.has_hooks = has_hooks
        """Without them Slurm has none of canhazgpu's, and its nodes have no agents."""
        self._driver = driver
        self.root = new_directory()
        self.supervision = {node: threading.Lock() for node in SPEC.node_names()}
        """Held by whoever starts a node's agent, and by a node that does not run."""
        clocks = self.root / "clocks"
        clocks.mkdir()
        self.clock_library = build_library(self.root)
        self.agent_clocks = {
            node: SteppedClock(self.clock_library, clocks / node) for node in SPEC.node_names()
        }
        self.program = venv / "bin" / "canhazgpu"
        self._installation = Installation(self.root, self.program, self.clock_library, weakness)
        self.notes = self.root / "notes"
        self.task = self.root / "gpu-task"
        self.gpu_process = self.root / "fake" / "gpu-process"
        self.config = self.root / "config.toml"
        _mount_memory(self.root / "store", "size=2g,mode=755")
        store_clock = SteppedClock(self.clock_library, clocks / "store")
        self.store: SoakStore = STORES[store](self.root / "store", store_clock)
        self.slurm = PrivateSlurm(self.root / "slurm", SPEC)
        self.users: list[str] = []
        self.rogue_user = ""
        self.gpus: dict[str, list[str]] = {}

    @property
    def nodes(self) -> tuple[str, ...]:
        return SPEC.node_names()

    def boot(self) -> None:
        """Make all of it and start it."""
        self.notes.mkdir()
        self.notes.chmod(0o1777)
        source = Path(__file__).resolve().parents[1] / "gpu-task"
        self.task.write_text(source.read_text())
        self.task.chmod(0o755)
        self._make_gpus()
        for number in range(USERS):
            self.users.append(create_user(f"soak{number}"))
        self.rogue_user = create_user("soak-rogue")
        self._installation.write_config(self.store)
        for node in self.nodes:
            self._mount_state(node)
            self.begin_boot(node)
        self.store.start()
        self.slurm = PrivateSlurm(self.root / "slurm", self._spec())
        self.slurm.start()

    def close(self) -> None:
        """End and remove everything, each part whatever becomes of the others."""
        with contextlib.ExitStack() as undo:
            undo.callback(shutil.rmtree, self.root, ignore_errors=True)
            undo.callback(delete_users, [*self.users, *filter(None, [self.rogue_user])])
            undo.callback(self._unmount_state)
            undo.callback(self.store.close)
            undo.callback(self.slurm.stop)

    def person_environ(self, node: str) -> dict[str, str]:
        """The environment of a person on the node, who asks its agent."""
        socket = self.root / "run" / node / "agent" / "agent.sock"
        return {
            "CANHAZGPU_AGENT_SOCKET": str(socket),
            "FAKE_NVML_NODE": node,
            NODE_MARK: f"{self.root}/{node}",
            "PATH": "/usr/bin:/bin",
        }

    def lines(self, name: str) -> list[str]:
        """What the hooks' scripts have written to ``hooks``, and the agents to ``looks``."""
        path = self.root / name
        return path.read_text().splitlines() if path.exists() else []

    def agent_pid(self, node: str) -> int:
        """The agent's main process, 0 where none runs."""
        process = self.slurm.agent_process(node)
        return 0 if process is None else process.pid

    def state_dir(self, node: str) -> Path:
        """The directory of the node's own records."""
        return self.root / "run" / node

    def begin_boot(self, node: str) -> None:
        """Empty what a boot empties, and give the node a boot id that it has not had."""
        for entry in self.state_dir(node).iterdir():
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)
        self._boot_id(node).write_text(f"{uuid.uuid4()}\n")

    def processes_of(self, node: str) -> list[int]:
        """The processes that end with the node: those that see its boot id, and its people's."""
        mark = f"{NODE_MARK}={self.person_environ(node)[NODE_MARK]}"
        return processes_on(self._boot_id(node).read_text(), mark)

    def _boot_id(self, node: str) -> Path:
        return self.root / "boots" / node

    def _mount_state(self, node: str) -> None:
        self._boot_id(node).parent.mkdir(exist_ok=True)
        _mount_memory(self.state_dir(node), STATE_OPTIONS)

    def _unmount_state(self) -> None:
        for directory in (self.root / "store", *map(self.state_dir, self.nodes)):
            command = ["umount", "--lazy", str(directory)]
            subprocess.run(command, check=False, stderr=subprocess.DEVNULL, timeout=60)

    def _make_gpus(self) -> None:
        if self._driver is None:
            install(self.root / "fake")
        else:
            shutil.copytree(self._driver, self.root / "fake")
        state = FakeState(self.root / "fake" / "state")
        for node in SPEC.node_specs():
            made = state.add_node(node.name, gpus=GPUS_PER_NODE, minors=node.minors)
            self.gpus[node.name] = [gpu.uuid for gpu in made.gpus]

    def _spec(self) -> ClusterSpec:
        if self.has_hooks:
            return self._installation.installed_spec()
        return self._installation.spec_with_empty_hooks()
